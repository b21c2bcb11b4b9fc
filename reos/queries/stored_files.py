"""Files in the storage: pending before their bytes are written, used once a row refers to them."""

from __future__ import annotations

from reos.db import Connection, Record, execute, fetch_all, fetch_one
from reos.sql import load

SQL = load("stored_files")


async def create(conn: Connection, storage_key: str, content_type: str, size_bytes: int, *, is_public: bool) -> int:
    """A pending file's id."""
    row = await fetch_one(conn, SQL.create_stored_file, storage_key, content_type, size_bytes, is_public)
    assert row is not None
    return int(row["id"])


async def use(conn: Connection, file_ids: list[int]) -> None:
    """The files now belong to a row."""
    await execute(conn, SQL.use_stored_files, file_ids)


async def abandon(conn: Connection, file_ids: list[int]) -> None:
    """The files belong to no row any more; the sweep removes them."""
    await execute(conn, SQL.abandon_stored_files, file_ids)


async def get(conn: Connection, file_id: int) -> Record | None:
    return await fetch_one(conn, SQL.get_stored_file, file_id)


async def get_public(conn: Connection, file_id: int) -> Record | None:
    """A file that everybody may see who has its address; None also while what it belongs to is deleted."""
    return await fetch_one(conn, SQL.get_public_file, file_id)


async def remove(conn: Connection, file_ids: list[int]) -> None:
    """Forget the tenant's files, whose bytes are gone."""
    await execute(conn, SQL.delete_stored_files, file_ids)


async def list_abandoned(conn: Connection, after: int) -> list[Record]:
    """A batch of those that have been pending for more than an hour, of all organisations, with ids above `after`."""
    return await fetch_all(conn, SQL.list_abandoned_files, after)
