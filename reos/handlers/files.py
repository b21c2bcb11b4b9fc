"""Files under addresses that nobody can guess: pictures for good, documents for minutes."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from sanic import Blueprint, HTTPResponse, Request

from reos.context import Context
from reos.db import Record, tenant_transaction
from reos.errors import ResourceNotFoundError
from reos.handlers.campaign_sending import EXPORT_PURPOSE, export_name
from reos.handlers.documents import DOCUMENT_PURPOSE
from reos.handlers.images import FILE_PURPOSE
from reos.integrations.storage import attachment
from reos.middleware.call import is_known
from reos.middleware.requests import streaming
from reos.queries import campaigns, leads, stored_files

bp = Blueprint("files")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
# The address names the very bytes, so whoever has them may keep them. A file is shown, never run.
PICTURE_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Disposition": "inline",
}
DOCUMENT_HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
}


@bp.route("/files/<token>", methods=["GET", "HEAD"])
async def get_file(request: Request, token: str) -> HTTPResponse | None:
    """Stream a picture, or a document or export whose address the API gave out. A wrong or expired one is 404."""
    context: Context = request.app.ctx.context
    found = await _picture(context, token) or await _document(context, token) or await _export(context, token)
    if found is None:
        raise ResourceNotFoundError
    file, headers = found
    if "ETag" in headers and is_known(request, headers["ETag"]):
        return HTTPResponse(None, 304, headers)
    headers["Content-Length"] = str(file["size_bytes"])
    if request.method == "HEAD":
        return HTTPResponse(None, 200, headers, content_type=file["content_type"])
    stored = await context.storage.open(file["storage_key"])
    with streaming(request):
        response: Any = await request.respond(headers=headers, content_type=file["content_type"])
        async with aclosing(stored.chunks) as chunks:
            async for chunk in chunks:
                await response.send(chunk)
        await response.eof()
    return None


Found = tuple[Record, dict[str, str]]


async def _picture(context: Context, token: str) -> Found | None:
    numbers = context.signer.open(FILE_PURPOSE, token)
    if numbers is None or len(numbers) != 2:
        return None
    organization_id, file_id = numbers
    async with tenant_transaction(context.database, organization_id, read_only=True) as conn:
        file = await stored_files.get_public(conn, file_id)
    return None if file is None else (file, {**PICTURE_HEADERS, "ETag": f'"{token}"'})


async def _document(context: Context, token: str) -> Found | None:
    numbers = context.signer.open(DOCUMENT_PURPOSE, token)
    if numbers is None or len(numbers) != 3 or numbers[2] < time.time():
        return None
    organization_id, document_id, _ = numbers
    async with tenant_transaction(context.database, organization_id, read_only=True) as conn:
        file = await leads.get_document_file(conn, document_id)
    return file, {**DOCUMENT_HEADERS, "Content-Disposition": attachment(file["file_name"])}


async def _export(context: Context, token: str) -> Found | None:
    numbers = context.signer.open(EXPORT_PURPOSE, token)
    if numbers is None or len(numbers) != 3 or numbers[2] < time.time():
        return None
    organization_id, campaign_id, _ = numbers
    async with tenant_transaction(context.database, organization_id, read_only=True) as conn:
        file = await campaigns.get_export_file(conn, campaign_id)
    return file, {**DOCUMENT_HEADERS, "Content-Disposition": attachment(export_name(campaign_id))}
