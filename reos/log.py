"""Structured logging and its context.

Every line carries the request, user and organisation that the present task works for. On stderr lines are JSON, or
coloured text on a terminal; the files in DATA_DIR/logs are always JSON. A file belongs to one process at a time, so
that several processes never rotate the same one.
"""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import json
import logging
import os
import shutil
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson
from loguru import logger

from reos.settings import Settings

if TYPE_CHECKING:
    from loguru import Record

ROTATE_AT = "50 MB"
KEEP_FILES = 10  # of each kind and process, beside the present one
CONTEXT_NAMES = ("request_id", "user_id", "organization_id")

# Libraries that tell each step on the level INFO.
_QUIET = ("sanic.access", "sanic.server", "sanic.root", "yoyo.migrations", "asyncio", "procrastinate", "PIL")

ACCESS_LAG = 0.1  # seconds until a line of the access log is written, at the latest
ACCESS_LINES = 500  # that are written together, at most

_component = ""  # what this process is
_pid = os.getpid()
_context: ContextVar[dict[str, Any]] = ContextVar("log_context", default={})  # noqa: B039 - it is only ever replaced
_control_characters = {number: f"\\x{number:02x}" for number in (*range(32), 127)}


def set_context(**values: Any) -> None:
    """Name what the present task works for: `request_id`, `user_id`, `organization_id`. Replaces what was named."""
    _context.set(values)


def add_context(**values: Any) -> None:
    """Name more of what the present task works for."""
    _context.set({**_context.get(), **values})


def setup_logging(settings: Settings, component: str, *, files: bool = True) -> None:
    """Send all logging, also that of the libraries, to stderr and to files named after `component`.

    Tracebacks never show the values of variables: those are people's data and secrets.
    """
    global _component
    _component = component
    logger.remove()
    logger.configure(extra={"component": component}, patcher=_add_context)
    safe: dict[str, Any] = {"level": settings.log_level, "backtrace": False, "diagnose": False}
    if settings.logs_json:
        logger.add(sys.stderr, format=_json_line, **safe)
    else:
        logger.add(sys.stderr, format=_console_line, **safe)
    _route_standard_logging(settings)
    if files:
        try:
            _add_files(settings.data_dir / "logs", component, safe)
        except OSError as error:
            logger.warning("No log files are written: {}", error)


def _add_files(directory: Path, component: str, options: dict[str, Any]) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = _claim_name(directory, component)
    rotated: dict[str, Any] = {"rotation": ROTATE_AT, "retention": KEEP_FILES, "compression": _compress, "delay": True}
    logger.add(directory / f"{name}.log", format=_json_line, **options, **rotated)
    # loguru takes every `name.*.log` for an old file of `name.log`.
    logger.add(directory / f"{name}_errors.log", format=_json_line, **{**options, "level": "ERROR"}, **rotated)


_claimed: dict[Path, TextIO] = {}  # The lock files that this process holds open.


def _claim_name(directory: Path, component: str) -> str:
    """The component's name, or with a number the first that no other process writes under."""
    number = 1
    while True:
        name = component if number == 1 else f"{component}-{number}"
        path = directory / f".{name}.lock"
        if path in _claimed:
            return name
        file = open(path, "w")  # noqa: SIM115 - it stays open, and locked, for as long as the process lives
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            number += 1
        else:
            _claimed[path] = file
            return name


def _compress(path: str) -> None:
    """Compress a rotated file in a thread: it takes a second, which an event loop does not have.

    loguru looks for old files to remove meanwhile. So the plain file goes out of its sight, since it will vanish at
    any moment, and the packed one, which will stay, is there to be counted from the beginning.
    """
    plain, packed = Path(path).with_name(f".{Path(path).name}"), f"{path}.gz"
    os.rename(path, plain)
    Path(packed).touch()
    threading.Thread(target=_compress_now, args=(plain, packed), name="log-compression").start()


def _compress_now(plain: Path, packed: str) -> None:
    # The least effort makes lines like these an eighth as long already, in a third of the time of the default.
    with open(plain, "rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target)
    plain.unlink()


def _add_context(record: Record) -> None:
    for name, value in _context.get().items():
        record["extra"].setdefault(name, value)


def _json_line(record: Record) -> str:
    """The format of a JSON line; loguru fills in what we leave in `extra`."""
    extra = {name: value for name, value in record["extra"].items() if name not in ("_json", "_text")}
    content: dict[str, Any] = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
        "pid": record["process"].id,
        **{name: extra.pop(name) for name in ("component", *CONTEXT_NAMES) if extra.get(name) is not None},
        **{name: value for name, value in extra.items() if value is not None},
    }
    if record["exception"]:
        content["exception"] = _traceback(record)
    record["extra"]["_json"] = orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return "{extra[_json]}\n"


def _console_line(record: Record) -> str:
    hidden = ("_json", "_text", "component", "method", "path", "status")
    extra = " ".join(
        f"{name}={value}" for name, value in record["extra"].items() if name not in hidden and value not in (None, "")
    )
    # A client chooses parts of the message; a line break in them must not look like another line.
    record["extra"]["_text"] = f"{record['message']}  {extra}".rstrip().translate(_control_characters)
    line = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> <cyan>{extra[component]}</cyan> {extra[_text]}\n"
    return line + ("{exception}" if record["exception"] else "")


def _traceback(record: Record) -> str:
    import traceback

    error = record["exception"]
    assert error is not None
    return "".join(traceback.format_exception(error.type, error.value, error.traceback))


class AccessLog:
    """A line for each request. As JSON they are written some at a time, since each by itself would take longer than
    much of the request; what is killed loses those of its last moment.
    """

    def __init__(self, settings: Settings):
        self._is_wanted = settings.log_level in ("DEBUG", "INFO")
        self._is_json = settings.logs_json
        self._lines: list[bytes] = []

    def write(self, message: str, fields: dict[str, Any]) -> None:
        """Log what a request was. Needs a running event loop."""
        if not self._is_wanted:
            return
        if not self._is_json:
            logger.bind(**fields).info("{}", message)
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(ACCESS_LAG, self.flush)
        standing = {"time": datetime.now(UTC), "level": "INFO", "message": message, "logger": __name__}
        self._lines.append(_dump({**standing, "pid": _pid, "component": _component, **fields}))
        if len(self._lines) >= ACCESS_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        if self._lines:
            text = b"\n".join(self._lines).decode()
            self._lines.clear()
            # The lines are complete; loguru would put each into a record first, and that into every sink's format.
            logger.opt(raw=True).info(text + "\n")


def _dump(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)
    except TypeError:
        # Something that the client sent is no text, which orjson does not write.
        return json.dumps(content, default=str).encode()


class _ToLoguru(logging.Handler):
    """Hands what libraries log by the standard library on to loguru, under the library's own name."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def rename(target: Record) -> None:
            target["name"] = record.name
            _add_context(target)

        logger.patch(rename).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def _route_standard_logging(settings: Settings) -> None:
    logging.basicConfig(handlers=[_ToLoguru()], level=settings.log_level, force=True)
    for name in logging.root.manager.loggerDict:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Our middleware writes the one access line of a request.
    logging.getLogger("sanic.access").disabled = True
    logging.captureWarnings(capture=True)
