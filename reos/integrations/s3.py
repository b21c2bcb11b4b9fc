"""Files in an S3 bucket: of Amazon's service, or of a server that speaks its protocol (MinIO, SeaweedFS, Ceph)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from reos.errors import ResourceNotFoundError, StorageServiceError
from reos.integrations.storage import CHUNK_BYTES, StoredFile, attachment, check_key
from reos.settings import Settings

PART_BYTES = 8 * 1024 * 1024  # a part of a multipart upload has at least 5 MiB
CONNECT_SECONDS = 3.0
READ_SECONDS = 20.0
NO_KEY = "NoSuchKey"
NO_BUCKET = frozenset({"NoSuchBucket", "404"})  # the latter is all that a HEAD can say
BUCKET_EXISTS = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})

# Whatever the way to the server, or the server, can do. TimeoutError is an OSError.
FAILURES = (ClientError, BotoCoreError, aiohttp.ClientError, OSError)

Result = TypeVar("Result")


class S3Storage:
    """Objects under the storage keys. The client is kept, and made at the first use, with the bucket if need be."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._bucket = settings.s3_bucket
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._has_bucket = False
        self._opening = asyncio.Lock()

    async def _open_client(self) -> Any:
        """The client, once the bucket is there. It is kept also while the server is away: each takes megabytes."""
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(self._new_client())
        # Outside the lock, or all who wait for a silent server would do so one after the other.
        if not self._has_bucket:
            await _make_bucket(self._client, self._bucket)
            self._has_bucket = True
        return self._client

    def _new_client(self) -> Any:
        settings = self._settings
        config = AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 2, "mode": "standard"},
            # For presigned links too, which would else be signed the old way for endpoints of one's own.
            signature_version="s3v4",
            # Names of buckets are no names of hosts on servers of one's own.
            s3={"addressing_style": "path"},
            # Not every server knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return get_session().create_client(
            "s3",
            endpoint_url=endpoint_url(settings),
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key or None,
            region_name=settings.s3_region,
            config=config,
        )

    async def _tried(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        """The work's result. Raises ResourceNotFoundError for a key that is not there, else StorageServiceError."""
        try:
            return await work(self._client if self._has_bucket else await self._open_client())
        except ClientError as error:
            if _code(error) == NO_KEY:
                raise ResourceNotFoundError from None
            raise StorageServiceError from error
        except FAILURES as error:
            raise StorageServiceError from error

    async def put(self, key: str, data: bytes | AsyncIterator[bytes], content_type: str) -> int:
        check_key(key)
        if isinstance(data, bytes):
            await self._tried(lambda client: self._put(client, key, data, content_type))
            return len(data)
        parts = _parts(data)
        first = await anext(parts, b"")
        if len(first) < PART_BYTES:
            await self._tried(lambda client: self._put(client, key, first, content_type))
            return len(first)
        return await self._tried(lambda client: self._put_in_parts(client, key, first, parts, content_type))

    async def _put(self, client: Any, key: str, data: bytes, content_type: str) -> None:
        await client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentType=content_type)

    async def _put_in_parts(
        self, client: Any, key: str, first: bytes, rest: AsyncIterator[bytes], content_type: str
    ) -> int:
        """All or nothing: the object appears when the upload is completed."""
        where = {"Bucket": self._bucket, "Key": key}
        upload = await client.create_multipart_upload(**where, ContentType=content_type)
        where["UploadId"] = upload["UploadId"]
        done: list[dict[str, Any]] = []
        size = 0
        try:
            async for part in _chained(first, rest):
                number = len(done) + 1
                answer = await client.upload_part(**where, PartNumber=number, Body=part)
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
                size += len(part)
            await client.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
        except BaseException:
            await client.abort_multipart_upload(**where)
            raise
        return size

    async def open(self, key: str) -> StoredFile:
        check_key(key)
        answer = await self._tried(lambda client: client.get_object(Bucket=self._bucket, Key=key))
        return StoredFile(answer["ContentLength"], _read(answer["Body"]))

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._tried(lambda client: client.delete_object(Bucket=self._bucket, Key=key))

    async def presign(self, key: str, *, expires_in: int, filename: str, content_type: str) -> str | None:
        check_key(key)
        wanted = {
            "Bucket": self._bucket,
            "Key": key,
            "ResponseContentDisposition": attachment(filename),
            "ResponseContentType": content_type,
        }
        url: str = await self._tried(
            lambda client: client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=max(expires_in, 1))
        )
        return url

    async def check(self) -> dict[str, Any]:
        await self._tried(lambda client: client.head_bucket(Bucket=self._bucket))
        return {"provider": "s3"}

    async def close(self) -> None:
        await self._stack.aclose()
        self._client, self._has_bucket = None, False


def endpoint_url(settings: Settings) -> str | None:
    """The server's URL from S3_ENDPOINT, which may be a URL or host:port; None for Amazon's own."""
    endpoint = settings.s3_endpoint.rstrip("/")
    if not endpoint or "://" in endpoint:
        return endpoint or None
    return f"{'https' if settings.s3_secure else 'http'}://{endpoint}"


def _code(error: ClientError) -> str | None:
    code: str | None = error.response.get("Error", {}).get("Code")
    return code


async def _make_bucket(client: Any, bucket: str) -> None:
    try:
        await client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if _code(error) not in NO_BUCKET:
            raise
        try:
            await client.create_bucket(Bucket=bucket)
        except ClientError as refusal:
            # Another process was faster. A bucket of that name that is somebody else's refuses what comes next.
            if _code(refusal) not in BUCKET_EXISTS:
                raise


async def _parts(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data in parts of PART_BYTES, of which the last may be smaller."""
    waiting = bytearray()
    async for chunk in data:
        waiting += chunk
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _read(body: Any) -> AsyncIterator[bytes]:
    try:
        async with body:
            async for chunk in body.iter_chunks(CHUNK_BYTES):
                yield chunk
    except FAILURES as error:
        raise StorageServiceError from error
