"""Uploaded documents: private, and given out by links that expire."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from mimetypes import MimeTypes
from pathlib import PurePath
from typing import Any
from uuid import uuid4

from reos.db import tenant_transaction
from reos.errors import ValidationError
from reos.middleware.bodies import UploadedFile
from reos.middleware.call import Call
from reos.queries import leads, stored_files
from reos.schemas.leads import LeadDocumentUpload

DOCUMENT_PURPOSE = "document"
MAX_DOCUMENT_BYTES = 25 * 1024 * 1024
MAX_FILE_NAME = 255  # characters
LINK_SECONDS = 300
UNKNOWN_TYPE = "application/octet-stream"
MAX_CONTENT_TYPE = 100  # characters

# RFC 6838, section 4.2. Parameters are left out: they are not needed to save a file.
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_TYPES = MimeTypes()  # Python's own table: the machine's would make the same upload differ from host to host
for _ending, _kind in (("docx", "wordprocessingml.document"), ("xlsx", "spreadsheetml.sheet"),
                       ("pptx", "presentationml.presentation")):  # fmt: skip
    _TYPES.add_type(f"application/vnd.openxmlformats-officedocument.{_kind}", f".{_ending}")


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A file that is pending until a row uses it."""

    file_id: int
    name: str
    content_type: str
    size: int  # bytes


async def store_document(call: Call, body: Any, ids: dict[str, int]) -> StoredDocument | None:
    """Store an uploaded document; None when the body is a link, or when there is no such lead (the work says so).

    Raises ValidationError when the file is missing. Holds no connection while it works.
    """
    if not isinstance(body, LeadDocumentUpload):
        return None
    if call.file is None:
        raise ValidationError.of("file", "Field required", "missing")
    assert call.principal is not None
    organization_id, data = call.principal.organization_id, call.file.body
    name = _plain_name(call.file.name)
    content_type = _content_type(call.file, name)
    key = f"{organization_id}/documents/{uuid4().hex}"
    async with tenant_transaction(call.context.database, organization_id, call.user_id) as conn:
        if not await leads.exists(conn, ids["lead_id"]):
            return None
        file_id = await stored_files.create(conn, key, content_type, len(data), is_public=False)
    await call.context.storage.put(key, data, content_type)
    return StoredDocument(file_id, name, content_type, len(data))


def _content_type(file: UploadedFile, name: str) -> str:
    """What the client says that it is, or what its name tells. It is never shown, so it can do no harm."""
    declared = file.content_type.partition(";")[0].strip().lower()
    if declared != UNKNOWN_TYPE and len(declared) <= MAX_CONTENT_TYPE and _CONTENT_TYPE.fullmatch(declared):
        return declared
    return _TYPES.guess_type(name)[0] or UNKNOWN_TYPE


def _plain_name(name: str) -> str:
    """The client's file name without a path and without what no file name should hold."""
    last = PurePath(name.replace("\\", "/")).name
    plain = "".join(c for c in last if c.isprintable() and c not in '"<>|:*?/').strip(" .")
    return plain[-MAX_FILE_NAME:] or "document"


async def download_link(call: Call, document: Mapping[str, Any]) -> dict[str, Any]:
    """Where the document's file can be fetched without a log-in, and until when."""
    assert call.principal is not None
    expires_at = int(time.time()) + LINK_SECONDS
    url = await call.context.storage.presign(
        document["storage_key"],
        expires_in=LINK_SECONDS,
        filename=document["file_name"],
        content_type=document["content_type"],
    )
    if url is None:
        numbers = (call.principal.organization_id, document["id"], expires_at)
        url = f"{call.context.settings.base_url}/files/{call.context.signer.seal(DOCUMENT_PURPOSE, *numbers)}"
    return {"url": url, "expires_at": datetime.fromtimestamp(expires_at, UTC)}
