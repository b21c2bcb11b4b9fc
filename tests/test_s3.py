"""Both storages by the same tests: the local disk, and a real S3 server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import Api, served_api
from conftest import TestDatabase
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

from reos.errors import ResourceNotFoundError, StorageServiceError
from reos.handlers import health as health_checks
from reos.integrations.s3 import PART_BYTES, S3Storage, endpoint_url
from reos.integrations.storage import CHUNK_BYTES, Storage, make_storage
from reos.settings import Settings

pytestmark = pytest.mark.integration

KEY = "7/images/0f3c9a"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def settings_for(server: S3Server, data_dir: Path, **values: Any) -> Settings:
    given = {
        "data_dir": data_dir,
        "s3_endpoint": server.endpoint,
        "s3_secure": False,
        "s3_access_key": ACCESS_KEY,
        "s3_secret_key": SECRET_KEY,
        "jwt_secret_key": "k" * 32,
    }
    return Settings(_env_file=None, **(given | values))  # type: ignore[call-arg]


@pytest.fixture(params=["local", "s3"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """Each storage in turn, as the settings make it."""
    if request.param == "s3":
        settings = settings_for(request.getfixturevalue("server"), tmp_path)
    else:
        settings = Settings(_env_file=None, data_dir=tmp_path, jwt_secret_key="k" * 32)  # type: ignore[call-arg]
    storage = make_storage(settings)
    yield storage
    await storage.close()


async def read(storage: Storage, key: str = KEY) -> bytes:
    stored = await storage.open(key)
    data = b"".join([chunk async for chunk in stored.chunks])
    assert len(data) == stored.size
    return data


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_a_file_comes_back_as_it_was_put(storage: Storage, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert await storage.put(KEY, data, "image/png") == size
    assert await read(storage) == data


@pytest.mark.parametrize("size", [0, 10, PART_BYTES, 2 * PART_BYTES + 5])
async def test_a_file_can_be_put_in_pieces(storage: Storage, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await storage.put(KEY, pieces(data), "application/octet-stream") == size
    assert await read(storage) == data


async def test_what_breaks_off_leaves_what_was_there(storage: Storage) -> None:
    await storage.put(KEY, b"old", "text/plain")

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        yield bytes(10)
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError):
        await storage.put(KEY, broken(), "text/plain")
    assert await read(storage) == b"old"


async def test_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(ResourceNotFoundError):
        await storage.open("7/images/none")
    await storage.put(KEY, b"x", "text/plain")
    await storage.delete(KEY)
    await storage.delete(KEY)
    with pytest.raises(ResourceNotFoundError):
        await storage.open(KEY)


@pytest.mark.parametrize("key", ["", "../x", "a//b", "a/../b", "/a", ".hidden", "a b", "a" * 600])
async def test_no_key_leads_out(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        await storage.put(key, b"x", "text/plain")
    with pytest.raises(ValueError, match="storage key"):
        await storage.open(key)


async def test_the_check_names_the_provider_and_no_address(storage: Storage) -> None:
    assert (await storage.check())["provider"] in ("local", "s3")


async def test_a_signed_link_downloads_as_an_attachment_and_expires(server: S3Server, tmp_path: Path) -> None:
    storage = make_storage(settings_for(server, tmp_path))
    try:
        await storage.put(KEY, b"content", "text/html")
        url = await storage.presign(KEY, expires_in=60, filename="Vertrag ü.pdf", content_type="application/pdf")
        expiring = await storage.presign(KEY, expires_in=1, filename="x", content_type="text/plain")
        assert url is not None
        assert expiring is not None
        async with httpx.AsyncClient(verify=False) as http:
            response = await http.get(url)
            assert response.content == b"content"
            assert response.headers["Content-Type"] == "application/pdf"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert (await http.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))).status_code == 403

            async with asyncio.timeout(10):
                while (await http.get(expiring)).status_code != 403:
                    await asyncio.sleep(0.1)
    finally:
        await storage.close()


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"s3_endpoint": "minio:9000", "s3_secure": False}, "http://minio:9000"),
        ({"s3_endpoint": "minio:9000"}, "https://minio:9000"),
        ({"s3_endpoint": "https://s3.example.com/"}, "https://s3.example.com"),
        ({"s3_endpoint": "", "storage_provider": "s3"}, None),
    ],
)
def test_the_endpoint_may_be_a_url_or_a_host(values: dict[str, Any], url: str | None, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, jwt_secret_key="k" * 32, **values)  # type: ignore[call-arg]
    assert endpoint_url(settings) == url
    assert isinstance(make_storage(settings), S3Storage)


async def test_wrong_credentials_are_a_failure_of_the_storage(server: S3Server, tmp_path: Path) -> None:
    storage = make_storage(settings_for(server, tmp_path, s3_secret_key="wrong"))
    with pytest.raises(StorageServiceError):
        await storage.check()
    await storage.close()


async def test_a_server_that_is_away_costs_one_client(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, jwt_secret_key="k" * 32, s3_endpoint="http://127.0.0.1:9")  # type: ignore[call-arg]
    storage = S3Storage(settings.model_copy(update={"s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}))
    made = []
    make = storage._new_client
    storage._new_client = lambda: made.append(1) or make()  # type: ignore[method-assign, func-returns-value]
    for _ in range(2):
        with pytest.raises(StorageServiceError):
            await storage.check()
    await storage.close()
    assert len(made) == 1


async def test_two_that_make_the_bucket_at_once_both_have_it(server: S3Server, tmp_path: Path) -> None:
    storages = [make_storage(settings_for(server, tmp_path, s3_bucket="both")) for _ in range(4)]
    try:
        await asyncio.gather(*(storage.put(f"7/{n}", b"x", "text/plain") for n, storage in enumerate(storages)))
    finally:
        for storage in storages:
            await storage.close()


async def test_a_bucket_that_is_gone_is_a_failure_and_no_missing_file(server: S3Server, tmp_path: Path) -> None:
    storage = make_storage(settings_for(server, tmp_path, s3_bucket="gone"))
    assert isinstance(storage, S3Storage)
    try:
        await storage.check()
        await storage._client.delete_bucket(Bucket="gone")
        with pytest.raises(StorageServiceError):
            await storage.open(KEY)
        with pytest.raises(StorageServiceError):
            await storage.check()
    finally:
        await storage.close()


@pytest.fixture
async def with_s3(database: TestDatabase, server: S3Server, tmp_path: Path) -> AsyncIterator[Api]:
    """The service with its files on the server."""
    settings = settings_for(server, tmp_path).model_dump(include={"s3_endpoint", "s3_access_key", "s3_secret_key"})
    async with served_api(database, tmp_path, s3_secure=False, **settings) as api:
        yield api


async def test_the_service_keeps_its_files_there_and_goes_on_without(
    with_s3: Api, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "KEPT_SECONDS", 0)
    admin = await with_s3.register()
    lead = await admin.post("/leads", json={"first_name": "A", "last_name": "B", "source": "other"})
    path = f"/leads/{lead['id']}/documents"
    document = await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"content")})
    link = await admin.get(f"{path}/{document['id']}/download")
    async with httpx.AsyncClient(verify=False) as http:
        assert (await http.get(link["url"])).content == b"content"
    health = (await with_s3.http.get("/health")).json()
    assert health["checks"]["storage"]["details"]["provider"] == "s3"
    server.stop()
    try:
        error = await admin.error("POST", path, data={"title": "x"}, files={"file": ("x", b"x")}, status=503)
        assert error["type"] == "StorageServiceError"
        await admin.get(f"/leads/{lead['id']}")
        response = await with_s3.http.get("/health")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
    finally:
        server.start()
    await admin.post(path, data={"title": "x"}, files={"file": ("x", b"x")})
