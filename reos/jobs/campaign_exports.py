"""Campaigns that the service does not send itself: their recipients and texts as a file for who does."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO
from uuid import uuid4

from jinja2 import Template

from reos.db import Record, tenant_transaction
from reos.integrations.merging import compile_text, render_text
from reos.integrations.storage import CHUNK_BYTES
from reos.integrations.tracking import Addresses
from reos.jobs.task import Job
from reos.queries import campaign_sending as queries
from reos.queries import stored_files

CONTENT_TYPE = "text/csv; charset=utf-8"
BATCH = 1000
COLUMNS = ("lead_id", "first_name", "last_name", "email", "phone", "company", "text")

# What a spreadsheet would run as a formula.
_FORMULA = re.compile(r"[=+\-@\t\r]")


async def store_export(job: Job, campaign_id: int, campaign: Record) -> int:
    """Write the file and put it into the storage; its id. It is pending until the campaign uses it."""
    key = f"{job.organization_id}/exports/{uuid4().hex}"
    with tempfile.TemporaryFile() as file:
        async for lines in _lines(job, campaign_id, campaign):
            await asyncio.to_thread(file.write, lines)
        size = file.tell()
        async with tenant_transaction(job.database, job.organization_id) as conn:
            file_id = await stored_files.create(conn, key, CONTENT_TYPE, size, is_public=False)
        file.seek(0)
        await job.storage.put(key, _chunks(file), CONTENT_TYPE)
    return file_id


async def _lines(job: Job, campaign_id: int, campaign: Record) -> AsyncIterator[bytes]:
    """The file in pieces: RFC 4180, UTF-8. Each batch is read in a transaction of its own."""
    yield _csv([COLUMNS])
    template = compile_text(campaign["content"])
    after = 0
    while True:
        async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
            batch = await queries.list_for_export(conn, campaign_id, after, BATCH, campaign["created_by"])
        if not batch:
            return
        yield _csv([_row(job, campaign, template, recipient) for recipient in batch])
        after = batch[-1]["id"]


def _row(job: Job, campaign: Record, template: Template, recipient: Record) -> list[Any]:
    addresses = Addresses(job.settings, job.signer, job.organization_id, recipient["id"])
    values = {
        **recipient,
        "organization_name": campaign["organization_name"],
        "unsubscribe_url": addresses.unsubscribe_url,
    }
    text = render_text(template, values)
    return [recipient["lead_id"], *(_harmless(values[name]) for name in COLUMNS[1:-1]), _harmless(text)]


def _harmless(value: str | None) -> str:
    """The cell; an apostrophe keeps a spreadsheet from running it."""
    return f"'{value}" if value and _FORMULA.match(value) else value or ""


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk
