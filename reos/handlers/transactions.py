"""The transactions of deals. A closed deal takes them too: commissions are booked after the closing."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.errors import ValidationError
from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit, deals, organizations
from reos.queries import transactions as queries
from reos.schemas.common import patch_of, to_date
from reos.schemas.transactions import (
    Transaction,
    TransactionCreate,
    TransactionPage,
    TransactionQuery,
    TransactionUpdate,
)

bp = Blueprint("transactions")

_ITEM_FIELDS = tuple(Transaction.model_fields)


@post(bp, "/deals/{deal_id}/transactions", "deal:update", response=Transaction)
async def create_transaction(call: Call, deal_id: int, body: TransactionCreate) -> Answer:
    """Book a transaction of a deal, also of a closed one. A negative amount is a refund or a correction."""
    fields = await _fields_of(call, deal_id, body, body.model_dump())
    await deals.require(call.conn, deal_id)
    created = await queries.create(call.conn, deal_id, fields)
    call.audit("create", "transaction", created["id"], audit.created(created))
    return call.created(created, f"{PREFIX}/deals/{deal_id}/transactions/{created['id']}")


@get(bp, "/deals/{deal_id}/transactions", "deal:read", response=TransactionPage)
async def list_transactions(call: Call, deal_id: int, query: TransactionQuery) -> dict[str, Any]:
    """List the transactions of a deal, newest first by their days."""
    check_fields(query, _ITEM_FIELDS)
    filters = {"deal_id": deal_id} | query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-transaction_date")
    await deals.require(call.conn, deal_id)
    rows = await queries.list_transactions(call.conn, page, filters)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@put(
    bp, "/deals/{deal_id}/transactions/{transaction_id}", "deal:update", response=Transaction, is_tagged=False
)  # fmt: skip
async def update_transaction(call: Call, deal_id: int, transaction_id: int, body: TransactionUpdate) -> Record:
    """Change what is sent of a transaction."""
    fields = await _fields_of(call, deal_id, body, patch_of(body))
    await deals.require(call.conn, deal_id)
    before = await queries.lock(call.conn, deal_id, transaction_id)
    patch = differing(before, fields)
    if not patch:
        return before
    after = await queries.update(call.conn, transaction_id, patch)
    call.audit("update", "transaction", transaction_id, audit.changed(before, after))
    return after


@delete(bp, "/deals/{deal_id}/transactions/{transaction_id}", "deal:update")
async def delete_transaction(call: Call, deal_id: int, transaction_id: int) -> Answer:
    """Remove a transaction for good."""
    await deals.require(call.conn, deal_id)
    before = await queries.lock(call.conn, deal_id, transaction_id)
    await queries.delete(call.conn, transaction_id)
    removed = {name: [audit.plain(before[name]), None] for name in ("transaction_type", "amount", "transaction_date")}
    call.audit("delete", "transaction", transaction_id, {"deal_id": [deal_id, None]} | removed)
    return NO_CONTENT


async def _fields_of(
    call: Call, deal_id: int, body: TransactionCreate | TransactionUpdate, fields: dict[str, Any]
) -> dict[str, Any]:
    """The columns of a body, its date as a day. Raises ValidationError when it names another deal than the path."""
    if fields.pop("deal_id", None) not in (None, deal_id):
        raise ValidationError.of("deal_id", "Input should be the deal of the path", "other_deal")
    if "transaction_date" in fields:
        zone = await organizations.get_time_zone(call.conn)
        fields["transaction_date"] = to_date(body.transaction_date, zone)
    return fields
