"""Pictures of properties: links and uploads, and the addresses that show them."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import until
from PIL import Image

from reos.integrations import images

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
LINK = "https://example.com/a.jpg"
FIELDS = {"id", "property_id", "url", "thumbnail_url", "title", "description", "order", "is_primary", "created_by",
          "created_at"}  # fmt: skip
MIB = 1024 * 1024


def picture(format: str = "PNG", size: tuple[int, int] = (640, 480), **options: Any) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, "navy").save(written, format, **options)
    return written.getvalue()


def huge_png(width: int, height: int, rows: int | None = None) -> bytes:
    """A PNG of so many pixels in black and white, of a few kilobytes; it may claim more rows than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(rows or height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def add(client: Client) -> str:
    """The path of a new property's images."""
    return f"/properties/{(await client.post('/properties', json=LISTING))['id']}/images"


async def upload(client: Client, path: str, data: bytes, *, status: int = 201, **fields: str) -> Any:
    # The name and the type that the client tells mean nothing.
    return await client.post(path, status=status, files={"file": ("a.txt", data, "text/html")}, data=fields)


async def shown(api: Api, address: str, **headers: str) -> httpx.Response:
    assert address.startswith(f"{api.settings.base_url}/files/")
    return await api.http.get(address.removeprefix(api.settings.base_url), headers=headers)


# --- links -----------------------------------------------------------------------------------------------------


async def test_a_link(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    body = {"url": LINK, "title": "Front", "description": "From\nthe street", "order": 3, "is_primary": True}
    created = await admin.post(path, json=body)
    assert set(created) == FIELDS
    assert {name: created[name] for name in body} == body
    assert (created["thumbnail_url"], created["created_by"]) == (None, admin.user_id)
    plain = await admin.post(path, json={"url": "http://example.com"})
    assert (plain["title"], plain["description"], plain["order"], plain["is_primary"]) == (None, None, 0, False)
    assert await admin.get(path) == [created, plain]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"url": None}, "string_type"),
        ({"url": "ftp://example.com/a"}, "url_parsing"),
        ({"url": "javascript:alert(1)"}, "url_parsing"),
        ({"url": "data:image/png;base64,AA"}, "url_parsing"),
        ({"url": "//example.com/a"}, "url_parsing"),
        ({"url": "https://"}, "url_parsing"),
        ({"url": "https://exa mple.com"}, "url_parsing"),
        ({"url": "https://example.com/" + "x" * 1000}, "string_too_long"),
        ({"title": "x" * 201}, "string_too_long"),
        ({"order": -1}, "greater_than_equal"),
        ({"order": 2**31}, "less_than_equal"),
        ({"is_primary": "yes"}, "bool_type"),
        ({"is_primary": 1}, "bool_type"),
        ({"file": "x"}, "extra_forbidden"),
        ({"thumbnail_url": LINK}, "extra_forbidden"),
    ],
)
async def test_bad_links_are_refused(api: Api, change: dict[str, Any], code: str) -> None:
    admin = await api.register()
    path = await add(admin)
    assert await admin.fields_refused("POST", path, json={"url": LINK} | change) == {next(iter(change)): code}
    assert await admin.get(path) == []


async def test_the_primary_comes_first_then_their_order(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    for order, primary in ((5, False), (1, False), (9, True), (1, False)):
        await admin.post(path, json={"url": LINK, "order": order, "is_primary": primary})
    found = await admin.get(path)
    assert [(image["order"], image["is_primary"]) for image in found] == [
        (9, True), (1, False), (1, False), (5, False),
    ]  # fmt: skip
    assert found[1]["id"] < found[2]["id"]


async def test_at_most_one_is_primary(api: Api) -> None:
    admin = await api.register()
    path, other = await add(admin), await add(admin)
    await admin.post(other, json={"url": LINK, "is_primary": True})
    for _ in range(3):
        await asyncio.gather(*(admin.post(path, json={"url": LINK, "is_primary": True}) for _ in range(8)))
        found = await admin.get(path)
        assert [image["is_primary"] for image in found] == [True] + [False] * (len(found) - 1)
    assert [image["is_primary"] for image in await admin.get(other)] == [True]
    primary = (await admin.get(path))[0]["id"]
    await admin.delete(f"{path}/{primary}")
    assert not any(image["is_primary"] for image in await admin.get(path))


async def test_an_image_is_removed_once_and_only_from_its_property(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    path, other = await add(admin), await add(admin)
    image = (await admin.post(path, json={"url": LINK}))["id"]
    await admin.error("DELETE", f"{other}/{image}", status=404)
    await stranger.error("DELETE", f"{path}/{image}", status=404)
    answers = await asyncio.gather(*(admin.request("DELETE", f"{path}/{image}") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 5
    actions = [(row["action"], row["resource_id"]) for row in await api.audits(admin)
               if row["resource_type"] == "property_image"]  # fmt: skip
    assert actions == [("create", image), ("delete", image)]


# --- uploads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "content_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
async def test_an_upload_is_shown_under_its_address(api: Api, format: str, content_type: str) -> None:
    admin = await api.register()
    path = await add(admin)
    data = picture(format)
    created = await upload(admin, path, data, title="  Front ", description="x\ny", order="2", is_primary="true")
    assert set(created) == FIELDS
    assert (created["title"], created["description"], created["order"], created["is_primary"]) == (
        "Front", "x\ny", 2, True,
    )  # fmt: skip
    assert await admin.get(path) == [created]

    full = await shown(api, created["url"])
    assert (full.status_code, full.content) == (200, data)
    assert full.headers["Content-Type"] == content_type
    assert full.headers["Content-Length"] == str(len(data))
    assert full.headers["X-Content-Type-Options"] == "nosniff"
    assert full.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'; sandbox")
    assert full.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert full.headers["Content-Disposition"] == "inline"
    assert full.headers["Cache-Control"] == "public, max-age=31536000, immutable"

    small = await shown(api, created["thumbnail_url"])
    assert small.status_code == 200
    assert Image.open(io.BytesIO(small.content)).size == (400, 300)
    assert small.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
async def test_a_picture_may_be_as_small_as_a_pixel(api: Api, format: str) -> None:
    """A JPEG is read at an eighth of its size, which must not come to nothing."""
    admin = await api.register()
    path = await add(admin)
    for size, small in (((1, 1), (1, 1)), ((7, 500), (6, 400)), ((500, 7), (400, 6)), ((1, 16_000), (1, 400))):
        data = picture(format, size)
        created = await upload(admin, path, data)
        assert (await shown(api, created["url"])).content == data
        thumbnail = await shown(api, created["thumbnail_url"])
        assert Image.open(io.BytesIO(thumbnail.content)).size == small


async def test_an_address_is_stable_and_answers_head_and_304(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    data = picture()
    created = await upload(admin, path, data)
    for _ in range(2):
        assert (await admin.get(path))[0]["url"] == created["url"]
    address = created["url"].removeprefix(api.settings.base_url)
    full = await api.http.get(address)
    head = await api.http.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))
    assert head.headers["ETag"] == full.headers["ETag"]
    for known in (full.headers["ETag"], f"W/{full.headers['ETag']}", f'"x", {full.headers["ETag"]}', "*"):
        response = await api.http.get(address, headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (await api.http.get(address, headers={"If-None-Match": '"x"'})).content == data
    # A range is not needed; the whole is a right answer to it (RFC 9110, section 14.2).
    response = await api.http.get(address, headers={"Range": "bytes=0-9"})
    assert (response.status_code, response.content) == (200, data)
    for method in ("POST", "PUT", "DELETE"):
        response = await api.http.request(method, address)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_an_address_cannot_be_guessed(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    created = await upload(admin, path, picture())
    token = created["url"].rpartition("/")[2]
    assert created["thumbnail_url"].rpartition("/")[2] != token
    for wrong in (
        token[:-1],
        token + "A",
        token[::-1],
        "x" * len(token),
        "A" * 40,
        "1",
        "%00",
        "%2e%2e",
        token.swapcase(),
    ):
        response = await api.http.get(f"/files/{wrong}")
        assert response.status_code == 404
        assert token not in response.text


@pytest.mark.parametrize("what", ["image", "property"])
async def test_with_what_is_removed_the_address_goes(api: Api, what: str) -> None:
    admin = await api.register()
    path = await add(admin)
    created, other = await upload(admin, path, picture()), await upload(admin, await add(admin), picture())
    property_path = path.removesuffix("/images")
    await admin.delete(f"{path}/{created['id']}" if what == "image" else property_path)
    for name in ("url", "thumbnail_url"):
        assert (await shown(api, created[name])).status_code == 404
        etag = f'"{created[name].rpartition("/")[2]}"'
        assert (await shown(api, created[name], **{"If-None-Match": etag})).status_code == 404
        assert (await shown(api, other[name])).status_code == 200
    pending = "select count(*) from stored_files where organization_id = $1 and is_pending"
    assert await api.value(pending, admin.organization_id) == (2 if what == "image" else 0)
    if what == "property":
        await admin.post(f"{property_path}/restore", status=200)
        assert (await shown(api, created["url"])).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"<html><script>alert(1)</script></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.4",
        b"GIF89a<html><script>alert(1)</script></html>",
        b"GIF89a/*\x01\x00*/=1;alert(1)",
        b"\xff\xd8\xff\xe0<html>",
        b"\x89PNG\r\n\x1a\n<html>",
        b"RIFF\x10\x00\x00\x00WEBP<html></html>",
        b"\x00\x00\x01\x00\x01\x00",
        b"BM" + b"\0" * 100,
        b"\x89PNG\r\n\x1a\n",
        picture("PNG")[:-20],
        picture("PNG")[:200],
        picture("JPEG")[:300],
        picture("GIF")[:40],
        picture("WEBP")[:60],
        b"<html>" + picture("PNG"),
        picture("BMP"),
        picture("TIFF"),
    ],
)
async def test_what_is_no_picture_is_415(api: Api, data: bytes) -> None:
    admin = await api.register()
    path = await add(admin)
    response = await admin.request("POST", path, files={"file": ("a.png", data, "image/png")})
    assert response.status_code == 415
    assert response.json()["error"]["type"] == "InvalidFileTypeError"
    assert await admin.get(path) == []
    stored = "select count(*) from stored_files where organization_id = $1"
    assert await api.value(stored, admin.organization_id) == 0


@pytest.mark.parametrize("format", ["PNG", "GIF", "JPEG"])
async def test_a_picture_with_a_page_behind_it_is_shown_as_a_picture_only(api: Api, format: str) -> None:
    admin = await api.register()
    data = picture(format) + b"<html><script>alert(1)</script></html>"
    created = await upload(admin, await add(admin), data)
    full = await shown(api, created["url"])
    assert full.headers["Content-Type"] == f"image/{format.lower()}"
    assert full.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in full.headers["Content-Security-Policy"]
    assert b"<script>" not in (await shown(api, created["thumbnail_url"])).content


async def test_a_picture_may_have_ten_mebibytes(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    data = picture("PNG")
    largest = data[:-12] + chunk_of(10 * MIB - len(data)) + data[-12:]
    assert len(largest) == 10 * MIB
    created = await upload(admin, path, largest)
    assert (await shown(api, created["url"])).content == largest
    for data in (largest + b"\0", largest + b"\0" * 60_000, largest + b"\0" * MIB, largest * 3):
        response = await admin.request("POST", path, files={"file": ("a.png", data)})
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "FileTooLargeError"
    assert len(await admin.get(path)) == 1


def chunk_of(size: int) -> bytes:
    """A PNG chunk without meaning, of so many bytes in all."""
    data = b"\0" * (size - 12)
    return struct.pack(">I", len(data)) + b"prVt" + data + struct.pack(">I", zlib.crc32(b"prVt" + data))


async def test_a_picture_may_have_fifty_megapixels(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    await upload(admin, path, huge_png(10_000, 5_000))
    for width, height in ((10_000, 5_001), (60_000, 60_000)):
        response = await admin.request("POST", path, files={"file": ("a.png", huge_png(width, height, rows=1))})
        assert response.status_code == 413
        assert response.json()["error"]["details"] == {"limit": 50_000_000}


async def test_json_for_a_link_stays_within_its_own_limit(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    await admin.error("POST", path, status=413, content=b" " * (MIB + 1), headers={"Content-Type": "application/json"})
    await admin.error("POST", path, status=415, content=b"x", headers={"Content-Type": "image/png"})
    await admin.error("POST", path, status=415, data={"url": LINK})


# --- multipart bodies ------------------------------------------------------------------------------------------

FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"'
TITLE = b'Content-Disposition: form-data; name="title"'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"b") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return body + b"--" + boundary + b"--\r\n"


@pytest.mark.parametrize(
    ("status", "boundary", "body"),
    [
        (201, "b", form((FILE, picture()))),
        (201, "b", b"preamble\r\n" + form((FILE, picture())) + b"epilogue"),
        (201, "b", form((FILE + b"\r\nContent-Type: image/png\r\nX-Other: 1", picture()), (TITLE, b"x"))),
        (201, "b", form((b"content-disposition: FORM-DATA; NAME=file; FILENAME=a.png", picture()))),
        (201, "b", form((FILE, picture())).removesuffix(b"\r\n")),
        (201, "b", b"--b \t\r\n" + form((FILE, picture())).removeprefix(b"--b\r\n")),
        (201, '"a b\'c"', form((FILE, picture()), boundary=b"a b'c")),
        (400, "", form((FILE, picture()))),
        (400, "x" * 71, form((FILE, picture()), boundary=b"x" * 71)),
        (400, "other", form((FILE, picture()))),
        (400, "b", b""),
        (400, "b", b"--b"),
        (400, "b", b"--b\r\n"),
        (400, "b", form((FILE, picture())).removesuffix(b"--\r\n")),
        (400, "b", form((FILE, picture()))[:-8]),
        (400, "b", b"--b\r\n\r\n--b--\r\n"),
        (400, "b", form((b"X: 1", b"x"))),
        (400, "b", form((b'Content-Disposition: form-data; filename="a.png"', picture()))),
        (400, "b", form((b'Content-Disposition: attachment; name="file"; filename="a.png"', picture()))),
        (400, "b", form((FILE.replace(b"file", b"photo", 1), picture()))),
        (400, "b", form((FILE, picture()), (FILE, picture()))),
        (400, "b", form((FILE, picture()), (TITLE, b"\xff"))),
        (400, "b", form((b"\xff: 1\r\n" + FILE, picture()))),
        (400, "b", form(*[(TITLE, b"x")] * 200)),
        (400, "b", form((FILE + b"\r\nX: " + b"x" * 5000, picture()))),
        (422, "b", b"--b--"),
        (422, "b", form((TITLE, b"x"))),
        (422, "b", form((FILE, picture()), (TITLE, b"x"), (TITLE, b"y"))),
        (422, "b", form((FILE, picture()), (TITLE, b"a\x00b"))),
        (422, "b", form((FILE, picture()), (b'Content-Disposition: form-data; name="colour"', b"x"))),
        (422, "b", form((FILE, picture()), (b'Content-Disposition: form-data; name="order"', b"-1"))),
        (422, "b", form((FILE, picture()), (b'Content-Disposition: form-data; name="is_primary"', b"yes"))),
        (422, "b", form((b'Content-Disposition: form-data; name="file"', picture()[:0]))),
    ],
)
async def test_multipart_bodies(api: Api, status: int, boundary: str, body: bytes) -> None:
    admin = await api.register()
    path = await add(admin)
    content_type = f"multipart/form-data; boundary={boundary}" if boundary else "multipart/form-data"
    response = await admin.request("POST", path, content=body, headers={"Content-Type": content_type})
    assert response.status_code == status, response.text
    assert len(await admin.get(path)) == (status == 201)


async def test_bytes_that_look_like_the_boundary_are_content(api: Api) -> None:
    admin = await api.register()
    data = picture("PNG") + b"--b--b\n--b--\r\n--"
    body = form((FILE, data))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    created = await admin.post(await add(admin), content=body, headers=headers)
    assert (await shown(api, created["url"])).content == data


# --- what holds no connection ----------------------------------------------------------------------------------


async def test_an_upload_holds_no_connection_while_the_picture_is_looked_at(
    database: TestDatabase, tmp_path: Path
) -> None:
    async with served_api(database, tmp_path, db_pool_min=1, db_pool_max=1) as api:
        admin = await api.register()
        path = await add(admin)
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        # The one thread that looks at pictures is busy until it is told.
        busy = images._executor.submit(lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result())
        uploads = [asyncio.create_task(upload(admin, path, picture())) for _ in range(3)]
        await until(lambda: images._waiting == 3)
        assert await admin.get(path) == []
        release.set()
        created = await asyncio.gather(*uploads)
        assert busy.result()
        assert len({image["url"] for image in created}) == 3
        assert len(await admin.get(path)) == 3


async def test_permission_and_fields_are_judged_before_the_picture(api: Api) -> None:
    admin = await api.register()
    path = await add(admin)
    reader = await api.add_user_with(admin, ["property:read"])
    files = {"file": ("a.png", b"no picture")}
    assert (await reader.request("POST", path, files=files)).status_code == 403
    assert (await api.anonymous.request("POST", path, files=files)).status_code == 401
    assert await admin.fields_refused("POST", path, files=files, data={"order": "x"}) == {"order": "int_parsing"}
    assert (await admin.request("POST", path, files=files)).status_code == 415


async def test_an_upload_to_what_is_not_there_leaves_nothing(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    path = await add(admin)
    await upload(stranger, path, picture(), status=404)
    await admin.delete(path.removesuffix("/images"))
    await upload(admin, path, picture(), status=404)
    stored = "select count(*) from stored_files where organization_id = any($1)"
    assert await api.value(stored, [admin.organization_id, stranger.organization_id]) == 0
