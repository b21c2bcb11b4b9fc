"""Uploaded pictures: stored before the row that uses them, shown under a stable, unguessable address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from reos.db import tenant_transaction
from reos.errors import ValidationError
from reos.integrations.images import inspect_image, make_thumbnail
from reos.middleware.call import Call
from reos.queries import properties, stored_files
from reos.schemas.properties import ImageUpload

FILE_PURPOSE = "file"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture and its thumbnail, pending until a row uses them."""

    file_id: int
    thumbnail_file_id: int


async def store_upload(call: Call, body: Any, ids: dict[str, int]) -> StoredImage | None:
    """Check and store an uploaded picture; None when the body is a link. Holds no connection while it works.

    None also when there is no such property: the work says so, and its answer is kept with an Idempotency-Key.
    Raises InvalidFileTypeError (415), FileTooLargeError (413), ValidationError.
    """
    if not isinstance(body, ImageUpload):
        return None
    if call.file is None:
        raise ValidationError.of("file", "Field required", "missing")
    data = call.file.body
    info = await inspect_image(data)
    thumbnail, thumbnail_type = await make_thumbnail(data)
    assert call.principal is not None
    organization_id = call.principal.organization_id
    keys = [f"{organization_id}/images/{uuid4().hex}" for _ in range(2)]
    async with tenant_transaction(call.context.database, organization_id, call.user_id) as conn:
        if not await properties.exists(conn, ids["property_id"]):
            return None
        file_id = await stored_files.create(conn, keys[0], info.content_type, len(data), is_public=True)
        thumbnail_id = await stored_files.create(conn, keys[1], thumbnail_type, len(thumbnail), is_public=True)
    await call.context.storage.put(keys[0], data, info.content_type)
    await call.context.storage.put(keys[1], thumbnail, thumbnail_type)
    return StoredImage(file_id, thumbnail_id)


def present(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """The image as the API gives it: the files' addresses in place of their ids."""
    image = dict(row)
    file_id, thumbnail_id = image.pop("file_id"), image.pop("thumbnail_file_id")
    if file_id is not None:
        image["url"] = _address(call, file_id)
    image["thumbnail_url"] = _address(call, thumbnail_id) if thumbnail_id is not None else None
    return image


def _address(call: Call, file_id: int) -> str:
    assert call.principal is not None
    token = call.context.signer.seal(FILE_PURPOSE, call.principal.organization_id, file_id)
    return f"{call.context.settings.base_url}/files/{token}"
