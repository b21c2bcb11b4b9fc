"""Scheduled tasks that let go of what is past its retention: deleted rows, old audit rows, files that nothing uses."""

from __future__ import annotations

import asyncio
import gzip
import time

from loguru import logger

from reos import encoding
from reos.db import Record, plain_transaction, tenant_transaction
from reos.errors import StorageServiceError
from reos.jobs.task import Job, Retry, task
from reos.queries import retention, stored_files

RETENTION_RETRY = Retry(60, 600, 3600)
ARCHIVE_ROWS = 5000  # audit rows in a file
ARCHIVE_TYPE = "application/gzip"
SWEEP_SECONDS = 200.0  # after which the sweep of files ends: where the storage is away, each file takes seconds


@task("cleanup_soft_deleted_records", retry=RETENTION_RETRY, timeout=300, cron="41 3 * * 0")
async def cleanup_soft_deleted_records(job: Job) -> None:
    """Remove what was deleted SOFT_DELETE_RETENTION_DAYS ago, batch by batch until a batch is empty."""
    removed, batch = 0, 1
    while batch:
        async with plain_transaction(job.database) as conn:
            batch = await retention.purge_soft_deleted(conn, job.settings.soft_delete_retention_days)
        removed += batch
    logger.info("Removed {} deleted records", removed)


@task("cleanup_audit_logs", retry=RETENTION_RETRY, timeout=300, cron="11 2 * * *")
async def cleanup_audit_logs(job: Job) -> None:
    """Archive audit rows after AUDIT_RETENTION_DAYS as compressed JSON lines in the storage, then remove them.

    An organisation whose archive cannot be written does not keep the others; the job fails in the end all the same.
    """
    days = job.settings.audit_retention_days
    async with plain_transaction(job.database) as conn:
        organization_ids = await retention.list_old_audit_logs(conn, days)
    failed = 0
    for organization_id in organization_ids:
        try:
            while await _archive_batch(job, organization_id, days):
                pass
        except StorageServiceError as error:
            failed += 1
            logger.warning("The audit rows of organisation {} are not archived: {}", organization_id, error)
    if failed:
        raise StorageServiceError(f"The audit rows of {failed} organisations are not archived.")


async def _archive_batch(job: Job, organization_id: int, days: int) -> bool:
    """Archive and remove one batch; False when there was none. Nothing is removed that was not read back."""
    async with tenant_transaction(job.database, organization_id, read_only=True) as conn:
        rows = await retention.read_old_audit_logs(conn, days, ARCHIVE_ROWS)
    if not rows:
        return False
    first_id, last_id = rows[0]["id"], rows[-1]["id"]
    key = f"{organization_id}/audit/{first_id}-{last_id}.jsonl.gz"
    packed = await asyncio.to_thread(_pack, rows)
    await job.storage.put(key, packed, ARCHIVE_TYPE)
    stored = await job.storage.open(key)
    if b"".join([chunk async for chunk in stored.chunks]) != packed:
        raise StorageServiceError("The storage does not give back the archive that was written.")
    async with tenant_transaction(job.database, organization_id) as conn:
        removed = await retention.purge_audit_logs(conn, days, first_id, last_id)
        if removed != len(rows):
            # Raising rolls back: rows that are not in the file stay.
            raise StorageServiceError(f"{removed} audit rows would go, but {len(rows)} are archived.")
    logger.info("Archived {} audit rows of organisation {}", removed, organization_id)
    return True


def _pack(rows: list[Record]) -> bytes:
    """The rows as JSON lines, compressed; the same bytes for the same rows."""
    return gzip.compress(b"".join(encoding.dumps(row) + b"\n" for row in rows), mtime=0)


@task("cleanup_files", retry=RETENTION_RETRY, timeout=300, cron="47 * * * *")
async def cleanup_files(job: Job) -> None:
    """Remove files that no row uses: uploads that never became one, and what deleted rows have left behind.

    A file that the storage refuses to remove does not keep the others; the job fails in the end all the same.
    """
    removed, refused, after = 0, 0, 0
    ends = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < ends:
        async with plain_transaction(job.database) as conn:
            abandoned = await stored_files.list_abandoned(conn, after)
        if not abandoned:
            break
        after = abandoned[-1]["file_id"]
        # The bytes first: a row without bytes is swept again, bytes without a row would stay for ever.
        gone, kept = await _remove_bytes(job, abandoned, ends)
        refused += kept
        for organization_id, file_ids in gone.items():
            async with tenant_transaction(job.database, organization_id) as conn:
                await stored_files.remove(conn, file_ids)
            removed += len(file_ids)
    logger.info("Removed {} files that nothing uses", removed)
    if refused:
        raise StorageServiceError(f"{refused} files that nothing uses cannot be removed.")


async def _remove_bytes(job: Job, files: list[Record], ends: float) -> tuple[dict[int, list[int]], int]:
    """Which files of each organisation are gone from the storage, until the time is up; and how many it refused."""
    gone: dict[int, list[int]] = {}
    refused = 0
    for file in files:
        try:
            await job.storage.delete(file["storage_key"])
            gone.setdefault(file["organization_id"], []).append(file["file_id"])
        except StorageServiceError:
            refused += 1
            logger.warning("The storage does not remove the file {}", file["storage_key"])
        if time.monotonic() > ends:
            break
    return gone, refused
