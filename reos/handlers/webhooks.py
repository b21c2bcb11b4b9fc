"""Webhooks: where events are sent, and what came of it. Sending them is `jobs/webhooks.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sanic import Blueprint

from reos import encoding
from reos.db import Record, tenant_transaction
from reos.errors import BusinessLogicError, ResourceNotFoundError, ValidationError
from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.integrations.webhooks import (
    SECRET_PURPOSE,
    Outcome,
    RefusedUrlError,
    new_secret,
    open_secrets,
    signed_headers,
)
from reos.middleware.call import NO_CONTENT, Answer, Call, etag_of
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit
from reos.queries import webhooks as queries
from reos.schemas.common import patch_of
from reos.schemas.webhooks import (
    Webhook,
    WebhookCreate,
    WebhookDelivery,
    WebhookDeliveryItem,
    WebhookDeliveryPage,
    WebhookDeliveryQuery,
    WebhookItem,
    WebhookPage,
    WebhookQuery,
    WebhookTest,
    WebhookUpdate,
    WebhookWithSecret,
)

bp = Blueprint("webhooks")

SECRET_OVERLAP = timedelta(hours=24)  # for which a secret counts after the next was made

_ITEM_FIELDS = tuple(WebhookItem.model_fields)
_DELIVERY_FIELDS = tuple(WebhookDeliveryItem.model_fields)


async def check_url(call: Call, body: Any, ids: dict[str, int]) -> None:
    """Judge the URL of a body, which may need its name looked up. Raises ValidationError."""
    assert isinstance(body, WebhookCreate | WebhookUpdate)
    if "url" not in body.model_fields_set:
        return
    try:
        await call.context.webhooks.check(body.url)
    except RefusedUrlError as error:
        raise ValidationError.of("url", str(error), error.code) from None


@post(
    bp, "/webhooks", "webhook:create", response=WebhookWithSecret, is_tagged=True, is_secret=True, prepare=check_url
)  # fmt: skip
async def create_webhook(call: Call, body: WebhookCreate) -> Answer:
    """Create a webhook. The answer holds the secret that its deliveries are signed with, which is not shown again."""
    created = await queries.create(call.conn, body.model_dump())
    secret = await _set_secret(call, created["id"])
    call.audit("create", "webhook", created["id"], audit.created(created))
    answer = call.created({**created, "secret": secret}, f"{PREFIX}/webhooks/{created['id']}")
    return _tagged(answer, created)


@get(bp, "/webhooks", "webhook:read", response=WebhookPage)
async def list_webhooks(call: Call, query: WebhookQuery) -> dict[str, Any]:
    """List webhooks."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_webhooks(call.conn, page, filters)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/webhooks/{webhook_id}", "webhook:read", response=Webhook)
async def get_webhook(call: Call, webhook_id: int) -> Record:
    """Get a webhook."""
    return await queries.get(call.conn, webhook_id)


@put(bp, "/webhooks/{webhook_id}", "webhook:update", response=Webhook, prepare=check_url)
async def update_webhook(call: Call, webhook_id: int, body: WebhookUpdate) -> Record:
    """Change what is sent of a webhook. Switched on again, it gets what has been waiting for it."""
    before = await queries.lock(call.conn, webhook_id)
    call.if_match(before)
    patch = differing(before, patch_of(body))
    if not patch:
        return before
    after = await queries.update(call.conn, webhook_id, patch)
    call.audit("update", "webhook", webhook_id, audit.changed(before, after))
    if after["is_active"] and not before["is_active"]:
        await queries.wake(call.conn, [webhook_id])
    return after


@delete(bp, "/webhooks/{webhook_id}", "webhook:delete")
async def delete_webhook(call: Call, webhook_id: int) -> Answer:
    """Delete a webhook for good, with its deliveries. What is on its way may still arrive."""
    before = await queries.lock(call.conn, webhook_id)
    call.if_match(before)
    await queries.delete(call.conn, webhook_id)
    call.audit("delete", "webhook", webhook_id, audit.deleted(before))
    return NO_CONTENT


@post(
    bp, "/webhooks/{webhook_id}/rotate-secret", "webhook:update", response=WebhookWithSecret, status=200,
    is_tagged=True, is_secret=True,
)  # fmt: skip
async def rotate_webhook_secret(call: Call, webhook_id: int) -> Answer:
    """Make a new secret. For 24 hours deliveries are signed with the one before it as well."""
    webhook = await queries.lock(call.conn, webhook_id)
    secret = await _set_secret(call, webhook_id)
    call.audit("rotate", "webhook", webhook_id)
    return _tagged(Answer(200, {**webhook, "secret": secret}), webhook)


async def send_test(call: Call, body: Any, ids: dict[str, int]) -> Outcome | None:
    """Send a test event, between two short transactions; None when there is no such webhook."""
    assert call.principal is not None
    organization_id, webhook_id = call.principal.organization_id, ids["webhook_id"]
    async with tenant_transaction(call.context.database, organization_id, call.user_id, read_only=True) as conn:
        webhook = await queries.find(conn, webhook_id)
        secrets = open_secrets(call.context.signer, await queries.read_secrets(conn, webhook_id))
    if webhook is None:
        return None
    payload = {"type": "webhook.test", "timestamp": datetime.now(UTC), "data": {"webhook_id": webhook_id}}
    content = encoding.dumps(payload)
    headers = signed_headers(secrets, f"test_{uuid4().hex}", int(time.time()), content)
    outcome: Outcome = await call.context.webhooks.post(webhook["url"], headers, content)
    return outcome


@post(bp, "/webhooks/{webhook_id}/test", "webhook:update", response=WebhookTest, status=200, prepare=send_test)
async def send_test_webhook(call: Call, webhook_id: int) -> dict[str, Any]:
    """Send an event of the type `webhook.test` now, also to a webhook that is switched off, and tell what came of it.

    It is no delivery: it is not listed, not tried again, and its `webhook-id` begins with `test_`.
    """
    await queries.get(call.conn, webhook_id)
    outcome: Outcome | None = call.prepared
    if outcome is None:
        # When the test was to be sent, the webhook was not there.
        raise ResourceNotFoundError
    call.audit("send", "webhook", webhook_id, {"response_status": [None, outcome.status]})
    return {
        "ok": outcome.is_success,
        "response_status": outcome.status,
        "response_body": outcome.body,
        "response_time_ms": outcome.milliseconds,
        "error": outcome.error,
    }


@get(bp, "/webhooks/{webhook_id}/deliveries", "webhook:read", response=WebhookDeliveryPage)
async def list_webhook_deliveries(call: Call, webhook_id: int, query: WebhookDeliveryQuery) -> dict[str, Any]:
    """List what was, is and will be sent to a webhook, newest first. It is kept as long as events are."""
    check_fields(query, _DELIVERY_FIELDS)
    filters = {"webhook_id": webhook_id} | query.active_filters()
    page = page_request(call, queries.DELIVERIES, query, filters, "-created_at")
    await queries.get(call.conn, webhook_id)
    rows = await queries.list_deliveries(call.conn, page, filters)
    rows.items[:] = map(_present, rows.items)
    return envelope(call, queries.DELIVERIES, query, filters, page, rows)


@get(bp, "/webhooks/{webhook_id}/deliveries/{delivery_id}", "webhook:read", response=WebhookDelivery)
async def get_webhook_delivery(call: Call, webhook_id: int, delivery_id: int) -> dict[str, Any]:
    """Get a delivery."""
    await queries.get(call.conn, webhook_id)
    return _present(await queries.get_delivery(call.conn, webhook_id, delivery_id))


@post(
    bp, "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", "webhook:update", response=WebhookDelivery,
    status=200, is_tagged=True,
)  # fmt: skip
async def redeliver_webhook(call: Call, webhook_id: int, delivery_id: int) -> dict[str, Any]:
    """Send a delivery again, soon and under the same id, whatever came of it before."""
    webhook = await queries.get(call.conn, webhook_id)
    before = await queries.lock_delivery(call.conn, webhook_id, delivery_id)
    if not webhook["is_active"]:
        raise BusinessLogicError("The webhook is switched off.")
    if before["status"] == "sending":
        raise BusinessLogicError("The delivery is just being sent.")
    after = await queries.repeat_delivery(call.conn, delivery_id)
    call.audit("retry", "webhook_delivery", delivery_id)
    await queries.wake(call.conn, [webhook_id])
    return _present(after)


async def _set_secret(call: Call, webhook_id: int) -> str:
    secret = new_secret()
    sealed = call.context.signer.encrypt(SECRET_PURPOSE, secret.encode())
    await queries.set_secret(call.conn, webhook_id, sealed, SECRET_OVERLAP)
    return secret


def _tagged(answer: Answer, webhook: Record) -> Answer:
    """The answer with the tag that GET would give, which shows no secret."""
    answer.headers["ETag"] = etag_of(encoding.dumps(webhook))
    return answer


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    """The delivery as the API gives it: with what is sent, in place of the data alone."""
    return {name: row[name] for name in _DELIVERY_FIELDS if name != "payload"} | {"payload": queries.payload_of(row)}
