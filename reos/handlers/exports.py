"""Exports: the rows of a list as a CSV file (RFC 4180), read and sent page by page."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from reos.db import Connection
from reos.middleware.call import Answer, Call
from reos.queries import audit, organizations
from reos.queries.listing import PageRequest, Rows

PAGE_ROWS = 1000
PAGE_TEXT = 1024 * 1024  # characters
CHUNK_ROWS = 50

# What a spreadsheet takes for the beginning of a formula (OWASP, 'CSV Injection'), also in their wide forms.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")

Fetch = Callable[[Connection, PageRequest], Awaitable[Rows]]
Sort = tuple[tuple[str, bool], ...]  # (key, descending)


async def answer(
    call: Call,
    name: str,
    resource_type: str,
    columns: Sequence[str],
    sort: Sort,
    fetch: Fetch,
    asked: Mapping[str, Any],
) -> Answer:
    """The file of all rows that `fetch` gives page by page, named after `name` and the day.

    Its audit row holds how many they were, and the parameters that were `asked`. HEAD reads and audits nothing.
    """
    pages = CsvPages(columns, sort, fetch)
    if call.request.method == "GET":
        await pages.read(call.conn)
        changes = {"rows": [None, pages.total]} | {field: [None, audit.plain(value)] for field, value in asked.items()}
        call.audit("export", resource_type, None, changes)
    today = datetime.now(await organizations.get_time_zone(call.conn)).date()
    # There is no tag to ask with, so that a browser has no reason to keep thousands of people's data.
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-{today:%Y-%m-%d}.csv"',
        "Cache-Control": "private, no-store",
    }
    return Answer(200, None, headers, pages)


class CsvPages:
    """The pages of a file, the header row in front of the first.

    A page follows the last row of the one before it by the key that the list is sorted by, so that no connection has
    to be held for the whole file. What is changed meanwhile may come as it was or as it is.
    """

    def __init__(self, columns: Sequence[str], sort: Sort, fetch: Fetch):
        self.total: int | None = None  # rows, when the first page was read
        self.is_last = False
        self._columns, self._sort, self._fetch = columns, sort, fetch
        self._after: tuple[Any, ...] | None = None
        self._head: list[Sequence[str]] = [columns]
        self._rows: list[dict[str, Any]] = []

    async def read(self, conn: Connection) -> None:
        is_first = self._after is None
        page = PageRequest(PAGE_ROWS, self._sort, after=self._after, include_total=is_first, max_text=PAGE_TEXT)
        rows = await self._fetch(conn, page)
        self._rows, self._after, self.is_last = rows.items, rows.last, rows.last is None
        if is_first:
            self.total = rows.total

    def chunks(self) -> Iterator[bytes]:
        head, rows = self._head, self._rows
        self._head, self._rows = [], []
        for start in range(0, len(rows) or 1, CHUNK_ROWS):
            buffer = io.StringIO()
            writer = csv.writer(buffer)
            if start == 0:
                writer.writerows(head)
            writer.writerows([_cell(row[name]) for name in self._columns] for row in rows[start : start + CHUNK_ROWS])
            yield buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value as it stands in the file. Text that a spreadsheet would run as a formula gets a quote in front."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in _FORMULA else value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value, "f")
    return value
