"""What the tour shows: prose, requests with their answers, live events, and the pauses between the steps."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

BOLD, DIM, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = "1", "2", "31", "32", "33", "34", "35", "36"
MAX_VALUE = 60  # characters of a value that are shown
MAX_SECRET = 24  # and of a token
# What an event tells of its resource.
EVENT_FIELDS = (
    "id", "lead_id", "deal_id", "campaign_id", "address", "first_name", "last_name", "name", "status", "stage",
    "old_stage", "new_stage", "total_recipients", "sent_count", "message",
)  # fmt: skip


class Screen:
    """The terminal, which the tour and the reader of the events share."""

    def __init__(self, *, pauses: bool):
        self.pauses = pauses
        self.is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        self._lock = RLock()
        # A terminal that lacks a character shows another; the tour goes on.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]

    @contextmanager
    def block(self) -> Iterator[None]:
        """What is shown within stays together: events wait for its end."""
        with self._lock:
            yield

    def paint(self, text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self.is_coloured else text

    def line(self, text: str = "") -> None:
        with self._lock:
            print(text, flush=True)

    def title(self, number: int, total: int, text: str) -> None:
        with self.block():
            self.line()
            done = round(20 * number / total)
            progress = f"Step {number:>2} of {total} [{'#' * done}{'.' * (20 - done)}]"
            self.line(f"{self.paint(progress, CYAN)}  {self.paint(text, BOLD)}")

    def say(self, text: str) -> None:
        """A paragraph."""
        self.line("\n" + textwrap.fill(text, self.width))

    def note(self, text: str) -> None:
        """A line beside the story, such as why it waits."""
        self.line(self.paint(textwrap.fill(text, self.width, initial_indent="  ", subsequent_indent="  "), YELLOW))

    def request(self, method: str, path: str, headers: Mapping[str, str], body: str) -> None:
        self.line(f"\n  {self.paint(method, BLUE, BOLD)} {self.paint(path, BOLD)}")
        for name, value in headers.items():
            self.line(self.paint(f"  {name}: {shorten(value)}", DIM))
        if body:
            self.line(self._indented(body, "  "))

    def answer(self, status: int, reason: str, seconds: float, headers: Mapping[str, str], body: str) -> None:
        colour = GREEN if status < 400 else RED if status >= 500 else YELLOW
        said = self.paint(f"{status} {reason}", colour, BOLD)
        self.line(f"  {self.paint('->', colour)} {said} {self.paint(f'({1000 * seconds:.0f} ms)', DIM)}")
        for name, value in headers.items():
            self.line(self.paint(f"     {name}: {shorten(value)}", DIM))
        if body:
            self.line(self._indented(body, "     "))

    def event(self, event_type: str, data: Mapping[str, Any]) -> None:
        """An event that has arrived by itself."""
        told = ", ".join(f"{name} {data[name]}" for name in EVENT_FIELDS if data.get(name) is not None)
        text = f"live | {event_type}: {told}" if told else f"live | {event_type}"
        text = textwrap.shorten(text, self.width - 2, placeholder="...")
        self.line("  " + self.paint(text, MAGENTA))

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Columns as wide as what is in them."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        with self.block():
            for row in rows:
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                self.line(("     " + "  ".join(cells)).rstrip())

    def pause(self) -> None:
        """Wait for Enter, unless nobody is there to press it."""
        if not self.pauses:
            return
        self.line("\n" + self.paint("Enter goes on, Ctrl-C leaves.", DIM))
        # With input() a Ctrl-C that comes just before it begins to read would be noticed only after the next Enter.
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            pass
        self.pauses = sys.stdin.readline() != ""

    def _indented(self, text: str, indent: str) -> str:
        lines = textwrap.wrap(text, self.width - len(indent), break_long_words=False, break_on_hyphens=False)
        return textwrap.indent("\n".join(lines), indent)


def shorten(text: str) -> str:
    """A long text by its beginning, and less of a token."""
    most = MAX_SECRET if text.startswith(("Bearer ", "eyJ")) else MAX_VALUE
    return text if len(text) <= most else f"{text[: most - 3]}..."


def summary(content: Any, count: int = 6, shown: tuple[str, ...] = ()) -> str:
    """JSON as one reads it: the fields that are named, or the first ones, and how many there are beside them."""
    if isinstance(content, list):
        first = [summary(item, count, shown) for item in content[:2]]
        more = [f"... {len(content) - 2} more"] if len(content) > 2 else []
        return f"[{', '.join(first + more)}]"
    if not isinstance(content, Mapping):
        return json.dumps(shorten(content) if isinstance(content, str) else content, ensure_ascii=False)
    names = [name for name in shown if name in content] or list(content)[:count]
    fields = [f'"{name}": {summary(content[name], count, shown)}' for name in names]
    left = len(content) - len(names)
    return f"{{{', '.join(fields + ([f'... {left} more'] if left else []))}}}"
