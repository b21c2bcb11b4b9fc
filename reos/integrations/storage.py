"""Where files lie: a small protocol, and its form on the local disk.

Keys are made by the service (`7/images/0f3c…`), never by a client; their form is checked all the same.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote
from uuid import uuid4

from reos.errors import ResourceNotFoundError, StorageServiceError
from reos.settings import Settings, SettingsError

CHUNK_BYTES = 64 * 1024
MAX_KEY_LENGTH = 512

# Parts separated by slashes; none begins with a dot, so none is `.` or `..` or a file that is being written.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is open for reading: its chunks can be iterated once. Its content type stands in the database."""

    size: int  # bytes
    chunks: AsyncIterator[bytes]


class Storage(Protocol):
    """What the service asks of a file storage. Every method raises StorageServiceError (503) when it fails."""

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], content_type: str) -> int:
        """Store a file, all or nothing, in place of what the key held; its size in bytes.

        `content_type` is for storages that serve files themselves (`presign`).
        """
        ...

    async def open(self, key: str) -> StoredFile:
        """Open a file for reading. Raises ResourceNotFoundError."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error, so that a removal can be repeated."""
        ...

    async def presign(self, key: str, *, expires_in: int, filename: str, content_type: str) -> str | None:
        """A link that downloads the file for `expires_in` seconds; None where the service itself serves it."""
        ...

    async def check(self) -> dict[str, Any]:
        """Try the storage; what /health shows of it."""
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


def check_key(key: str) -> str:
    """The key. Raises ValueError for what is none, for one that would lead out of a directory above all."""
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise ValueError("not a storage key")
    return key


def attachment(name: str) -> str:
    """The Content-Disposition (RFC 6266) under which a browser saves a file, never shows it."""
    ascii_name = name.encode("ascii", "replace").decode().replace("?", "_").replace("\\", "_").replace('"', "_")
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


class LocalStorage:
    """Files below a directory, readable by their owner alone.

    A file is written beside its place, synced and renamed, so that after a crash there is the whole file or none.
    """

    def __init__(self, root: Path):
        """`root` is made when missing. Raises SettingsError when it cannot be."""
        self.root = root.absolute()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"DATA_DIR: {self.root} cannot be made: {error.strerror}.") from None

    def _path(self, key: str) -> Path:
        """The file of a key. Raises ValueError for a key that would leave the directory."""
        return self.root / check_key(key)

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], content_type: str) -> int:
        path = self._path(key)
        try:
            return await self._write(path, data)
        except OSError as error:
            raise StorageServiceError from error

    async def _write(self, path: Path, data: bytes | AsyncIterator[bytes]) -> int:
        # Named after the file, so that the removal of the file finds what a write that was killed has left.
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
        file = await asyncio.to_thread(_create, partial, self.root)
        size = 0
        try:
            if isinstance(data, bytes):
                size = await asyncio.to_thread(file.write, data)
            else:
                async for chunk in data:
                    size += await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_finish, file, partial, path)
        finally:
            # After the rename there is nothing left to remove; a write that was cut off leaves nothing behind.
            await asyncio.shield(asyncio.to_thread(_discard, file, partial))
        return size

    async def open(self, key: str) -> StoredFile:
        path = self._path(key)
        try:
            file, size = await asyncio.to_thread(_open, path)
        except FileNotFoundError:
            raise ResourceNotFoundError from None
        except OSError as error:
            raise StorageServiceError from error
        return StoredFile(size, _read(file))

    async def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            await asyncio.to_thread(_remove, path)
        except OSError as error:
            raise StorageServiceError from error

    async def presign(self, key: str, *, expires_in: int, filename: str, content_type: str) -> str | None:
        return None

    async def check(self) -> dict[str, Any]:
        probe = self.root / f".{uuid4().hex}.partial"
        try:
            await asyncio.to_thread(_probe, probe)
        except OSError as error:
            raise StorageServiceError from error
        return {"provider": "local"}

    async def close(self) -> None:
        """Nothing is held open."""


def make_storage(settings: Settings) -> Storage:
    """The storage that the settings name. Raises SettingsError."""
    if settings.uses_s3:
        # Only whoever uses it pays the time and memory that its libraries take.
        from reos.integrations.s3 import S3Storage

        return S3Storage(settings)
    return LocalStorage(settings.data_dir / "files")


# What follows blocks and runs in threads.


def _create(path: Path, root: Path) -> BinaryIO:
    _make_directories(path.parent, root)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _make_directories(directory: Path, root: Path) -> None:
    """Make the directory and those between it and the root, each on the disk before a file is in it."""
    if directory.is_dir():
        return
    if directory != root:
        _make_directories(directory.parent, root)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(directory.parent)


def _finish(file: BinaryIO, partial: Path, path: Path) -> None:
    """Make the written file the one of its key."""
    file.flush()
    os.fsync(file.fileno())
    partial.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[BinaryIO, int]:
    if not path.is_file():
        raise FileNotFoundError(path)
    file = path.open("rb")
    return file, os.fstat(file.fileno()).st_size


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise StorageServiceError from error
    finally:
        file.close()


def _discard(file: BinaryIO, partial: Path) -> None:
    """Close the file and remove what was not renamed, above all from a disk that is too full to close it."""
    try:
        file.close()
    finally:
        partial.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a file; where there is none, what writes of it have left that were killed."""
    try:
        path.unlink()
    except NotADirectoryError:
        return
    except FileNotFoundError:
        for partial in path.parent.glob(f".{path.name}.*.partial"):
            partial.unlink(missing_ok=True)


def _probe(path: Path) -> None:
    try:
        with _create(path, path.parent) as file:
            file.write(b"probe")
        if path.read_bytes() != b"probe":
            raise OSError("the disk does not give back what was written")
    finally:
        path.unlink(missing_ok=True)
