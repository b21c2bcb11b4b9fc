"""Reading a request's body: its size, its type, its bytes. What it means, the models say later."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

from sanic import Request
from sanic.exceptions import SanicException
from sanic.request.form import File

from reos.errors import FileTooLargeError, InvalidFileTypeError, InvalidInputError, RequestTimeoutError
from reos.schemas.common import parse_json
from reos.settings import Settings

BODY_DEADLINE = 60.0  # seconds in all: any received byte resets Sanic's own timers
MULTIPART_OVERHEAD = 64 * 1024  # bytes for part headers and the fields beside the file
MAX_UPLOAD_BYTES = 10 * 1024 * 1024


class BodyKind(Enum):
    """What an endpoint takes."""

    NONE = "none"
    JSON = "json"
    OPTIONAL_JSON = "optional_json"
    JSON_OR_FILE = "json_or_file"


@dataclass(slots=True)
class Body:
    """A body's bytes, and for multipart/form-data its fields and its file."""

    data: bytes
    form: dict[str, list[str]] | None = None
    file: File | None = None

    def json(self) -> Any:
        """The parsed object; an empty body (where that is allowed) is an empty object. Raises InvalidInputError."""
        return parse_json(self.data) if self.data else {}

    def fingerprint_parts(self) -> list[bytes]:
        """What tells two bodies apart; of multipart not the boundary but the parts."""
        if self.form is None:
            return [self.data]
        parts = [f"{name}={value}".encode() for name in sorted(self.form) for value in self.form[name]]
        if self.file is not None:
            parts += [str(self.file.name).encode(), sha256(self.file.body).digest()]
        return parts


async def read_body(request: Request, settings: Settings, kind: BodyKind) -> Body:
    """Read what was sent, within the size limit and a deadline.

    Raises FileTooLargeError (413), InvalidFileTypeError (415), RequestTimeoutError (408), InvalidInputError (400).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_multipart = kind is BodyKind.JSON_OR_FILE and content_type == "multipart/form-data"
    data = await _receive(request, MAX_UPLOAD_BYTES + MULTIPART_OVERHEAD if is_multipart else settings.max_body_bytes)
    if kind is BodyKind.NONE or (kind is BodyKind.OPTIONAL_JSON and not data):
        return Body(data)
    if is_multipart:
        return _parse_multipart(request, data)
    if content_type != "application/json" or _has_other_charset(request):
        also = " or multipart/form-data" if kind is BodyKind.JSON_OR_FILE else ""
        raise InvalidFileTypeError(f"The content type has to be application/json in UTF-8{also}.")
    if not data:
        raise InvalidInputError("The body is empty.")
    return Body(data)


async def _receive(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise FileTooLargeError(f"The body may have {limit} bytes.", limit=limit)
    stream: Any = request.stream
    chunks: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            while stream is not None and (chunk := await stream.read()):
                received += len(chunk)
                if received > limit:
                    raise FileTooLargeError(f"The body may have {limit} bytes.", limit=limit)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeoutError from None
    return b"".join(chunks)


def _has_other_charset(request: Request) -> bool:
    parameters = request.headers.get("content-type", "").lower().replace('"', "").replace(" ", "").partition(";")[2]
    return "charset=" in parameters and "charset=utf-8" not in parameters


def _parse_multipart(request: Request, data: bytes) -> Body:
    request.body = data
    try:
        form = {name: list(values) for name, values in (request.form or {}).items()}
        files = {name: list(values) for name, values in (request.files or {}).items()}
    except (SanicException, ValueError, LookupError) as error:
        raise InvalidInputError("The multipart body cannot be parsed.") from error
    if set(files) - {"file"} or len(files.get("file", [])) > 1:
        raise InvalidInputError("A multipart body takes one file, in the part named file.")
    return Body(data, form, files["file"][0] if files.get("file") else None)
