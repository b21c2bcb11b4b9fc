"""Public files under their unguessable addresses."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from sanic import Blueprint, HTTPResponse, Request

from reos.context import Context
from reos.db import tenant_transaction
from reos.errors import ResourceNotFoundError
from reos.handlers.images import FILE_PURPOSE
from reos.middleware.call import is_known
from reos.middleware.requests import streaming
from reos.queries import stored_files

bp = Blueprint("files")

# The address names the very bytes, so whoever has them may keep them. A file is shown, never run.
HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Disposition": "inline",
}


@bp.route("/files/<token>", methods=["GET", "HEAD"])
async def get_file(request: Request, token: str) -> HTTPResponse | None:
    """Stream a picture. An address that is wrong or whose file is gone is 404."""
    context: Context = request.app.ctx.context
    numbers = context.signer.open(FILE_PURPOSE, token)
    if numbers is None or len(numbers) != 2:
        raise ResourceNotFoundError
    organization_id, file_id = numbers
    async with tenant_transaction(context.database, organization_id, read_only=True) as conn:
        file = await stored_files.get_public(conn, file_id)
    if file is None:
        raise ResourceNotFoundError
    headers = {**HEADERS, "ETag": f'"{token}"'}
    if is_known(request, headers["ETag"]):
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
