"""The storage of files on the local disk: whole files or none, and no key leads out of it."""

from __future__ import annotations

import asyncio
import resource
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reos.errors import ResourceNotFoundError, StorageServiceError
from reos.integrations import storage as storages
from reos.integrations.storage import CHUNK_BYTES, LocalStorage, make_storage
from reos.settings import SettingsError, load_settings

pytestmark = pytest.mark.unit

KEY = "7/images/0f3c9a"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "files")


async def read(storage: LocalStorage, key: str) -> bytes:
    stored = await storage.open(key)
    data = b"".join([chunk async for chunk in stored.chunks])
    assert len(data) == stored.size
    return data


def files_of(storage: LocalStorage) -> list[Path]:
    return [path for path in storage.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_a_file_comes_back_as_it_was_put(storage: LocalStorage, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert await storage.put(KEY, data, "image/png") == size
    assert await read(storage, KEY) == data


async def test_a_file_can_be_put_in_pieces(storage: LocalStorage) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"abc"

    assert await storage.put(KEY, pieces(), "text/plain") == 15
    assert await read(storage, KEY) == b"abc" * 5


async def test_a_put_replaces_what_was_there(storage: LocalStorage) -> None:
    await storage.put(KEY, b"old", "text/plain")
    reader = await storage.open(KEY)
    await storage.put(KEY, b"newer", "text/plain")
    assert await read(storage, KEY) == b"newer"
    # Whoever had opened it goes on with what they had opened.
    assert b"".join([chunk async for chunk in reader.chunks]) == b"old"


async def test_files_are_for_their_owner_alone(storage: LocalStorage) -> None:
    await storage.put(KEY, b"x", "text/plain")
    assert stat.S_IMODE((storage.root / KEY).stat().st_mode) == 0o600
    for directory in (storage.root, storage.root / "7", storage.root / "7/images"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_put_that_breaks_leaves_nothing_and_keeps_what_was_there(storage: LocalStorage) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError):
        await storage.put(KEY, broken(), "text/plain")
    assert files_of(storage) == []
    await storage.put(KEY, b"kept", "text/plain")
    with pytest.raises(RuntimeError):
        await storage.put(KEY, broken(), "text/plain")
    assert await read(storage, KEY) == b"kept"
    assert len(files_of(storage)) == 1


async def test_a_put_that_is_cancelled_leaves_nothing(storage: LocalStorage) -> None:
    started = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.put(KEY, slow(), "text/plain"))
    await started.wait()
    assert len(files_of(storage)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_of(storage) == []


async def test_a_full_disk_keeps_nothing_of_what_it_refused(storage: LocalStorage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The size is noticed only when what is buffered goes out, and once more when the file is closed.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(StorageServiceError):
            await storage.put(KEY, b"small", "text/plain")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(storage) == []


async def test_the_removal_of_a_file_takes_what_a_killed_write_has_left(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("killed")

    monkeypatch.setattr(storages, "_discard", lambda file, partial: file.close())
    for key in (KEY, f"{KEY}0"):
        with pytest.raises(RuntimeError):
            await storage.put(key, broken(), "text/plain")
    assert len(files_of(storage)) == 2
    await storage.delete(KEY)
    (left,) = files_of(storage)
    assert left.name.startswith(f".{Path(KEY).name}0.")


async def test_a_file_that_is_not_there(storage: LocalStorage) -> None:
    with pytest.raises(ResourceNotFoundError):
        await storage.open(KEY)
    await storage.delete(KEY)
    await storage.put(KEY, b"x", "text/plain")
    for key in ("7", "7/images", f"{KEY}/below"):
        with pytest.raises(ResourceNotFoundError):
            await storage.open(key)


async def test_a_removal_can_be_repeated(storage: LocalStorage) -> None:
    await storage.put(KEY, b"x", "text/plain")
    await storage.delete(KEY)
    await storage.delete(KEY)
    assert files_of(storage) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        ".",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a\n",
        ".hidden",
        "a/.b",
        "~",
        "ä",
        "a b",
        "x" * 513,
    ],
)
async def test_no_key_leads_out(storage: LocalStorage, key: str) -> None:
    operations: list[Any] = [storage.put(key, b"x", "text/plain"), storage.open(key), storage.delete(key)]
    for operation in operations:
        with pytest.raises(ValueError, match="not a storage key"):
            await operation


async def test_a_disk_that_refuses_is_503(storage: LocalStorage) -> None:
    await storage.put("7/images", b"a file where a directory has to be", "text/plain")
    with pytest.raises(StorageServiceError):
        await storage.put(KEY, b"x", "text/plain")


async def test_the_check_writes_and_reads(storage: LocalStorage) -> None:
    assert await storage.check() == {"provider": "local"}
    assert files_of(storage) == []
    storage.root.rmdir()
    storage.root.write_bytes(b"")
    with pytest.raises(StorageServiceError):
        await storage.check()


async def test_the_service_serves_local_files_itself(storage: LocalStorage) -> None:
    assert await storage.presign(KEY, expires_in=60, filename="a.pdf", content_type="application/pdf") is None


def test_the_settings_choose_the_storage(tmp_path: Path) -> None:
    local = make_storage(load_settings(data_dir=tmp_path, storage_provider="local"))
    assert isinstance(local, LocalStorage)
    assert local.root == tmp_path / "files"


def test_a_root_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="DATA_DIR"):
        LocalStorage(tmp_path / "file" / "files")
