"""What goes after its retention, by the jobs' own bodies: deleted rows, archived audit rows, abandoned files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from api import Api, Client
from job_queue import running_worker, until
from test_properties import LISTING

from reos.db import plain_transaction, tenant_transaction
from reos.errors import StorageServiceError
from reos.integrations.storage import LocalStorage
from reos.queries import jobs, retention

pytestmark = pytest.mark.integration

LEAD = {"first_name": "A", "last_name": "B", "source": "other"}


async def run(api: Api, task: str, *, fails: bool = False) -> None:
    """Let a worker run a scheduled task now, and wait until it has succeeded, or failed for the first time."""
    async with plain_transaction(api.database) as conn:
        job_id = await jobs.defer(conn, task, {})
    assert job_id is not None
    ended = "status = 'todo' and attempts = 1" if fails else "status = 'succeeded'"

    async def has_ended() -> bool:
        return bool(await api.value(f"select {ended} from procrastinate.procrastinate_jobs where id = $1", job_id))

    async with running_worker(api.settings):
        await until(has_ended)


async def age(api: Api, table: str, row_id: int, column: str = "deleted_at", days: int = 91) -> None:
    statement = f"update {table} set {column} = {column} - make_interval(days => $2) where id = $1"
    await api.value(statement, row_id, days)


async def ids_in(api: Api, client: Client, table: str) -> set[int]:
    rows = await api.fetch(f"select id from {table} where organization_id = $1", client.organization_id)
    return {row["id"] for row in rows}


async def test_deleted_rows_go_unless_a_kept_row_refers_to_them(api: Api) -> None:
    admin = await api.register()
    free, held, fresh = [(await admin.post("/properties", json=LISTING))["id"] for _ in range(3)]
    deal = await admin.post("/deals", json={"property_id": held, "deal_type": "sell", "value": 1})
    await admin.put(f"/deals/{deal['id']}", json={"stage": "closed_lost"})
    gone_lead, kept_lead = [(await admin.post("/leads", json=LEAD))["id"] for _ in range(2)]
    for path in (f"/properties/{free}", f"/properties/{held}", f"/properties/{fresh}", f"/leads/{gone_lead}"):
        await admin.delete(path)
    for property_id in (free, held):
        await age(api, "properties", property_id)
    await age(api, "leads", gone_lead)
    await run(api, "cleanup_soft_deleted_records")
    assert await ids_in(api, admin, "properties") == {held, fresh}
    assert await ids_in(api, admin, "leads") == {kept_lead}
    # The deal goes, and then what only it has held.
    await admin.delete(f"/deals/{deal['id']}")
    await age(api, "deals", deal["id"])
    await run(api, "cleanup_soft_deleted_records")
    assert await ids_in(api, admin, "deals") == set()
    assert await ids_in(api, admin, "properties") == {fresh}


async def test_the_files_of_what_goes_are_swept(api: Api) -> None:
    admin = await api.register()
    lead = await admin.post("/leads", json=LEAD)
    path = f"/leads/{lead['id']}/documents"
    await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"content")})
    stored = await api.fetch("select * from stored_files where organization_id = $1", admin.organization_id)
    on_disk = api.settings.data_dir / "files" / stored[0]["storage_key"]
    await age(api, "stored_files", stored[0]["id"], "created_at", 1)
    await run(api, "cleanup_files")
    assert on_disk.exists()
    await admin.delete(f"/leads/{lead['id']}")
    await age(api, "leads", lead["id"])
    await run(api, "cleanup_soft_deleted_records")
    await run(api, "cleanup_files")
    assert not on_disk.exists()
    assert await ids_in(api, admin, "stored_files") == set()


async def test_a_file_that_cannot_be_removed_does_not_keep_the_others(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, other = await api.register(), await api.register()
    stuck = f"{admin.organization_id}/images/stuck"
    # More than a batch, and the oldest of them is refused.
    for client, key in ((admin, stuck), (admin, f"{admin.organization_id}/images/gone"), (other, "x")):
        await api.value(
            """insert into stored_files (organization_id, storage_key, content_type, size_bytes, is_public, created_at)
            select $1, $2 || coalesce(nullif(n, 0)::text, ''), 'image/png', 1, false, now() - interval '1 day'
            from generate_series(0, $3) n""",
            client.organization_id,
            key,
            0 if key == stuck else 600 if key == "x" else 1,
        )
    remove = LocalStorage.delete

    async def refuse(storage: LocalStorage, key: str) -> None:
        if key == stuck:
            raise StorageServiceError
        await remove(storage, key)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "delete", refuse)
        await run(api, "cleanup_files", fails=True)
    assert await ids_in(api, other, "stored_files") == set()
    (left,) = await api.fetch("select * from stored_files where organization_id = $1", admin.organization_id)
    assert left["storage_key"] == stuck
    await api.value("update stored_files set is_pending = false where id = $1", left["id"])


def archived(directory: Path) -> list[dict[str, Any]]:
    """The rows of all archives below a directory."""
    return [json.loads(line) for path in sorted(directory.glob("*.gz")) for line in gzip.open(path, "rt")]


async def test_audit_rows_are_archived_before_they_go(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    for client in (admin, admin, other):
        await client.post("/leads", json=LEAD)
    old = (await api.audits(admin))[0]
    await age(api, "audit_logs", old["id"], "created_at", 366)
    await run(api, "cleanup_audit_logs")
    rows = archived(api.settings.data_dir / "files" / str(admin.organization_id) / "audit")
    assert [row["id"] for row in rows] == [old["id"]]
    assert rows[0]["changes"] == json.loads(old["changes"])
    assert old["id"] not in await ids_in(api, admin, "audit_logs")
    assert len(await api.audits(admin)) == 1
    assert len(await api.audits(other)) == 1


async def test_an_archive_that_cannot_be_written_does_not_keep_the_others(api: Api) -> None:
    clients = [await api.register() for _ in range(3)]
    for client in clients:
        await client.post("/leads", json=LEAD)
        await age(api, "audit_logs", (await api.audits(client))[0]["id"], "created_at", 366)
    stuck = min(clients, key=lambda client: client.organization_id)
    in_the_way = api.settings.data_dir / "files" / str(stuck.organization_id)
    in_the_way.write_bytes(b"a file where a directory has to be")
    await run(api, "cleanup_audit_logs", fails=True)
    assert [len(await api.audits(client)) for client in clients] == [int(client is stuck) for client in clients]
    in_the_way.unlink()
    await run(api, "cleanup_audit_logs")
    assert await api.audits(stuck) == []


async def test_only_the_tenants_old_audit_rows_can_be_removed(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    for client in (admin, other):
        await client.post("/leads", json=LEAD)
        await client.post("/leads", json=LEAD)
        await age(api, "audit_logs", (await api.audits(client))[0]["id"], "created_at", 366)
    for tenant, removed in ((None, 0), (admin.organization_id, 1)):
        begin = plain_transaction(api.database) if tenant is None else tenant_transaction(api.database, tenant)
        async with begin as conn:
            assert await retention.purge_audit_logs(conn, 365, 1, 2**62) == removed
    assert len(await api.audits(admin)) == 1
    assert len(await api.audits(other)) == 2


async def test_nothing_goes_that_is_not_archived(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.register()
    await admin.post("/leads", json=LEAD)
    (row,) = await api.audits(admin)
    await age(api, "audit_logs", row["id"], "created_at", 366)

    async def refuse(*_: Any) -> int:
        raise StorageServiceError

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "put", refuse)
        async with plain_transaction(api.database) as conn:
            job_id = await jobs.defer(conn, "cleanup_audit_logs", {})
        assert job_id is not None

        async def has_failed_once() -> bool:
            query = "select attempts from procrastinate.procrastinate_jobs where id = $1"
            return bool(await api.value(query, job_id) == 1)

        async with running_worker(api.settings):
            await until(has_failed_once)
    assert [kept["id"] for kept in await api.audits(admin)] == [row["id"]]
