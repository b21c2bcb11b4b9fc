"""Reading a request's body: its size, its type, and whether it can be parsed. What it means, the models say later."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

from sanic import Request
from sanic.headers import parse_content_header

from reos.errors import FileTooLargeError, InvalidFileTypeError, InvalidInputError, RequestTimeoutError
from reos.schemas.common import parse_json
from reos.settings import Settings

BODY_DEADLINE = 60.0  # seconds in all: any received byte resets Sanic's own timers
MULTIPART_OVERHEAD = 64 * 1024  # bytes for part headers and the fields beside the file
MAX_UPLOAD_BYTES = 10 * 1024 * 1024
MAX_DISCARDED_BYTES = 64 * 1024 * 1024  # of a body that is too large
MAX_PARTS = 100
MAX_PART_HEADER_BYTES = 4096

# RFC 2046, section 5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")


class BodyKind(Enum):
    """What an endpoint takes."""

    NONE = "none"
    JSON = "json"
    OPTIONAL_JSON = "optional_json"
    JSON_OR_FILE = "json_or_file"


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """The file of a multipart body. Its name and type are the client's, and say nothing that could be relied on."""

    name: str
    body: bytes
    content_type: str = ""  # as the part's header has it


@dataclass(slots=True)
class Body:
    """What was sent: a JSON object, or the fields and the file of a form."""

    data: bytes  # as they came; of a form none, because its file may be large and is held once
    json: dict[str, Any] | None = None
    form: dict[str, list[str]] | None = None
    file: UploadedFile | None = None

    def fingerprint_parts(self) -> list[bytes]:
        """What tells two bodies apart; of multipart not the boundary but the parts' names and contents."""
        if self.form is None:
            return [self.data]
        parts = [(name, value.encode()) for name in sorted(self.form) for value in self.form[name]]
        if self.file is not None:
            parts.append(("file", self.file.body))
        return [text for name, content in parts for text in (name.encode(), sha256(content).digest())]


async def read_body(
    request: Request, settings: Settings, kind: BodyKind, max_file_bytes: int = MAX_UPLOAD_BYTES
) -> Body:
    """Read and parse what was sent, within the size limit (`max_file_bytes` for a form with a file) and a deadline.

    Raises FileTooLargeError (413), InvalidFileTypeError (415), RequestTimeoutError (408), InvalidInputError (400).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_multipart = kind is BodyKind.JSON_OR_FILE and content_type == "multipart/form-data"
    data = await _receive(request, max_file_bytes + MULTIPART_OVERHEAD if is_multipart else settings.max_body_bytes)
    if kind is BodyKind.NONE or (kind is BodyKind.OPTIONAL_JSON and not data):
        return Body(data, {})
    if is_multipart:
        return _parse_multipart(data, _boundary_of(request), max_file_bytes)
    if content_type != "application/json" or _has_other_charset(request):
        also = " or multipart/form-data" if kind is BodyKind.JSON_OR_FILE else ""
        raise InvalidFileTypeError(f"The content type has to be application/json in UTF-8{also}.")
    if not data:
        raise InvalidInputError("The body is empty.")
    return Body(data, parse_json(data))


async def _receive(request: Request, limit: int) -> bytes:
    """The bytes. What is too large is read and thrown away first: many clients listen only when they have sent all."""
    stream: Any = request.stream
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    if size > MAX_DISCARDED_BYTES or (size > limit and stream.expecting_continue):
        # Such a client waits for a word before it sends anything, and gets this one.
        stream.expecting_continue, stream.request_body, stream.keep_alive = False, None, False
        raise _too_large(limit)
    chunks: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            while stream.request_body and (chunk := await stream.read()):
                received += len(chunk)
                size = max(size, received)
                if size <= limit:
                    chunks.append(chunk)
                elif size > MAX_DISCARDED_BYTES:
                    raise _too_large(limit)
    except TimeoutError:
        stream.keep_alive = False  # What still comes is the rest of this body.
        raise RequestTimeoutError from None
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> FileTooLargeError:
    return FileTooLargeError(f"The body may have {limit} bytes.", limit=limit)


def _has_other_charset(request: Request) -> bool:
    parameters = request.headers.get("content-type", "").lower().replace('"', "").replace(" ", "").partition(";")[2]
    return "charset=" in parameters and "charset=utf-8" not in parameters


# --- multipart/form-data (RFC 7578) ------------------------------------------------------------------------------
# Sanic's own parser takes what it does not understand for an empty form, and finds a boundary in the midst of a line.


def _boundary_of(request: Request) -> bytes:
    boundary = parse_content_header(request.headers["content-type"])[1].get("boundary", "")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise _malformed()
    return boundary.encode()


def _parse_multipart(data: bytes, boundary: bytes, max_file_bytes: int) -> Body:
    """The fields and the file. Raises InvalidInputError (400) and FileTooLargeError (413)."""
    body = Body(b"", form={})
    assert body.form is not None
    for start, end in _parts(data, boundary):
        header_end = data.find(b"\r\n\r\n", start, end)
        if header_end < 0 or header_end - start > MAX_PART_HEADER_BYTES:
            raise _malformed()
        headers = _part_headers(data[start:header_end])
        name, file_name = _disposition(headers)
        content = data[header_end + 4 : end]
        if file_name is None:
            try:
                body.form.setdefault(name, []).append(content.decode())
            except UnicodeDecodeError:
                raise InvalidInputError("A field of the multipart body is not UTF-8.") from None
        elif name != "file" or body.file is not None:
            raise InvalidInputError("A multipart body takes one file, in the part named file.")
        elif len(content) > max_file_bytes:
            raise FileTooLargeError(f"The file may have {max_file_bytes} bytes.", limit=max_file_bytes)
        else:
            body.file = UploadedFile(file_name, content, headers.get("content-type", ""))
    return body


def _parts(data: bytes, boundary: bytes) -> list[tuple[int, int]]:
    """Where each part begins and ends, between delimiters that stand at the beginning of a line."""
    delimiter = b"\r\n--" + boundary
    position = 0 if data.startswith(delimiter[2:]) else data.find(delimiter) + 2
    if position == 1:
        raise _malformed()
    position += len(delimiter) - 2
    parts: list[tuple[int, int]] = []
    while not data.startswith(b"--", position):
        end, line_end = data.find(delimiter, position), data.find(b"\r\n", position)
        if end <= line_end or data[position:line_end].strip(b" \t") or len(parts) == MAX_PARTS:
            raise _malformed()
        parts.append((line_end + 2, end))
        position = end + len(delimiter)
    return parts


def _part_headers(block: bytes) -> dict[str, str]:
    """The headers of a part by their names in lower case."""
    try:
        lines = block.decode().split("\r\n")
    except UnicodeDecodeError:
        raise _malformed() from None
    fields = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in fields}


def _disposition(headers: dict[str, str]) -> tuple[str, str | None]:
    """The part's name, and its file's name if it is a file."""
    kind, parameters = parse_content_header(headers.get("content-disposition", ""))
    name, file_name = parameters.get("name"), parameters.get("filename", parameters.get("filename*"))
    if kind == "form-data" and isinstance(name, str) and not isinstance(file_name, int):
        return name, file_name
    raise _malformed()


def _malformed() -> InvalidInputError:
    return InvalidInputError("The multipart body cannot be parsed.")
