"""The API's document and the two pages that show it. They load nothing from elsewhere."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sanic import Blueprint, HTTPResponse, Request

import reos
from reos import encoding
from reos.errors import ResourceNotFoundError
from reos.handlers.pages import WINDOW_HEADERS
from reos.middleware.call import etag_of, tag_matches
from reos.middleware.endpoint import ENDPOINTS
from reos.openapi import build_document

bp = Blueprint("docs")

STATIC = Path(reos.__file__).parent / "static"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

# Both pages set styles from scripts, and ReDoc searches in a worker that it makes from a blob.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@bp.route("/openapi.json", methods=["GET", "HEAD"])
async def openapi(request: Request) -> HTTPResponse:
    """The OpenAPI document."""
    return _tagged(request, _document(), "application/json", {"Cache-Control": "no-cache"})


@bp.route("/docs", methods=["GET", "HEAD"])
async def swagger(request: Request) -> HTTPResponse:
    """The document in Swagger UI."""
    return _page(request, "swagger.html")


@bp.route("/redoc", methods=["GET", "HEAD"])
async def redoc(request: Request) -> HTTPResponse:
    """The document in ReDoc."""
    return _page(request, "redoc.html")


@bp.route("/static/<name>", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> HTTPResponse:
    """What the pages load. A large file is kept gzipped, and unpacked for whoever does not take it so."""
    asset = _assets().get(name)
    if asset is None:
        raise ResourceNotFoundError
    headers = {"Cache-Control": "public, max-age=3600", "Vary": "Accept-Encoding"}
    body = asset.content
    if asset.is_packed and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    elif asset.is_packed:
        body = _unpacked(name)
    return _tagged(request, body, CONTENT_TYPES[Path(name).suffix], headers)


def _page(request: Request, name: str) -> HTTPResponse:
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": CONTENT_SECURITY_POLICY, **WINDOW_HEADERS}
    return _tagged(request, _assets()[name].content, CONTENT_TYPES[".html"], headers)


def _tagged(request: Request, body: bytes, content_type: str, headers: dict[str, str]) -> HTTPResponse:
    headers["ETag"] = etag_of(body)
    none_match = request.headers.get("if-none-match", "")
    if none_match.strip() == "*" or tag_matches(none_match.replace("W/", ""), headers["ETag"]):
        return HTTPResponse(None, 304, headers)
    return HTTPResponse(body, 200, headers, content_type=content_type)


@cache
def _document() -> bytes:
    # At the first request every blueprint has registered its endpoints.
    return encoding.dumps(build_document(ENDPOINTS, reos.__version__))


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, perhaps gzipped."""

    content: bytes
    is_packed: bool


@cache
def _assets() -> dict[str, Asset]:
    """The files by the name under which they are served."""
    assets: dict[str, Asset] = {}
    for path in STATIC.iterdir():
        name = path.name.removesuffix(".gz")
        if Path(name).suffix in CONTENT_TYPES:
            assets[name] = Asset(path.read_bytes(), is_packed=path.suffix == ".gz")
    return assets


@cache
def _unpacked(name: str) -> bytes:
    return gzip.decompress(_assets()[name].content)
