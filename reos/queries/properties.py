"""Properties and what belongs to them: images, valuations, notes, activities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from reos.db import Connection, Record, execute, fetch_all, fetch_existing, fetch_value
from reos.errors import ResourceNotFoundError
from reos.queries.listing import (
    Listing,
    PageRequest,
    Rows,
    SortKey,
    condition,
    contains_pattern,
    fetch_page,
    text_condition,
)
from reos.queries.search import search_filters
from reos.queries.sublists import SubList, fetch_sublist
from reos.sql import load

SQL = load("properties")

_DISTANCE = "distance_km({}, {}, p.latitude_degrees, p.longitude_degrees)"

LISTING = Listing(
    table="properties",
    alias="p",
    columns=SQL.property_columns,
    always="p.deleted_at is null",
    near=_DISTANCE.format("$1", "$2"),
    sort_keys={
        "created_at": SortKey("p.created_at", is_time=True),
        "updated_at": SortKey("p.updated_at", is_time=True),
        "price": SortKey("p.price_cents", is_nullable=True),
        "bedrooms": SortKey("p.bedrooms", is_nullable=True),
        "square_feet": SortKey("p.square_feet", is_nullable=True),
        "year_built": SortKey("p.year_built", is_nullable=True),
        "city": SortKey("p.city"),
        "status": SortKey("p.status"),
        "distance": SortKey(_DISTANCE.format("$1", "$2")),
    },
    filters={
        "near": condition(
            "(p.latitude_degrees between {0}::float8 - {2}::float8 / 111.0 and {0}::float8 + {2}::float8 / 111.0"
            " and " + _DISTANCE.format("{0}", "{1}") + " <= {2})",
            arity=3,
        ),
        "ids": condition("p.id = any({})"),
        "words": text_condition("p.search_text like all({})"),
        "city": text_condition("lower(p.city) like {}"),
        "state": text_condition("lower(p.state) like {}"),
        "zip_code": condition("p.zip_code = {}"),
        "property_type": condition("p.property_type = {}"),
        "status": condition("p.status = {}"),
        "min_price": condition("p.price >= {}"),
        "max_price": condition("p.price <= {}"),
        "min_bedrooms": condition("p.bedrooms >= {}"),
        "max_bedrooms": condition("p.bedrooms <= {}"),
        "min_bathrooms": condition("p.bathrooms >= {}"),
        "min_square_feet": condition("p.square_feet >= {}"),
        "max_square_feet": condition("p.square_feet <= {}"),
        "updated_since": condition("p.updated_at >= {}"),
    },
)


EXPORT = replace(LISTING, columns=SQL.property_cells)


async def list_properties(
    conn: Connection,
    page: PageRequest,
    filters: Mapping[str, Any],
    *,
    search: str | None = None,
    near: tuple[float, float, float] | None = None,
    listing: Listing = LISTING,
) -> Rows:
    """A page of the list. `filters` holds the plain filters; `near` is latitude, longitude and radius in km."""
    values: dict[str, tuple[Any, ...]] = {"near": near} if near else {}
    if search:
        values |= await search_filters(conn, SQL.search_property_ids, search)
    for name, value in filters.items():
        values[name] = (contains_pattern(value),) if name in ("city", "state") else (value,)
    return await fetch_page(conn, listing, values, page)


async def get(conn: Connection, property_id: int) -> Record:
    """The property as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_property, property_id)


async def lock(conn: Connection, property_id: int) -> Record:
    """The property as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_property, property_id)


async def lock_deleted(conn: Connection, property_id: int) -> Record:
    """The deleted property, locked. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_deleted_property, property_id)


async def existing_ids(conn: Connection, property_ids: Sequence[int]) -> set[int]:
    """Which of the ids lead to a property."""
    rows = await fetch_all(conn, SQL.list_existing_properties, property_ids) if property_ids else []
    return {row["id"] for row in rows}


async def lock_all(conn: Connection, property_ids: list[int]) -> dict[int, Record]:
    """The properties by id, deleted ones too, locked; each with the deal that gave it its status."""
    return {row["id"]: row for row in await fetch_all(conn, SQL.lock_properties, property_ids)}


async def set_statuses(conn: Connection, statuses: list[dict[str, Any]]) -> list[Record]:
    """The properties with the statuses that deals give them: id, status, deal_id (None: the deal lets go)."""
    return await fetch_all(conn, SQL.set_property_statuses, statuses)


async def is_held(conn: Connection, property_id: int) -> bool:
    """Whether a deal has the property under contract."""
    return bool(await fetch_value(conn, SQL.property_is_held, property_id))


async def list_in_portfolio(conn: Connection, portfolio_id: int) -> list[Record]:
    """The portfolio's properties that are not deleted, by id."""
    return await fetch_all(conn, SQL.list_portfolio_properties, portfolio_id)


async def exists(conn: Connection, property_id: int) -> bool:
    return bool(await fetch_value(conn, SQL.property_exists, property_id))


async def require(conn: Connection, property_id: int) -> None:
    """Raises ResourceNotFoundError unless the property is there."""
    if not await exists(conn, property_id):
        raise ResourceNotFoundError


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new property. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_property, fields)


async def update(conn: Connection, property_id: int, patch: Mapping[str, Any]) -> Record:
    """The property after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_property, property_id, patch)


async def delete(conn: Connection, property_id: int) -> None:
    await execute(conn, SQL.delete_property, property_id)


async def restore(conn: Connection, property_id: int) -> Record:
    return await fetch_existing(conn, SQL.restore_property, property_id)


async def list_images(conn: Connection, property_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_property_images, property_id, limit, offset)


async def create_image(
    conn: Connection,
    property_id: int,
    *,
    url: str | None,
    file_id: int | None,
    thumbnail_file_id: int | None,
    title: str | None,
    description: str | None,
    order: int,
    is_primary: bool,
) -> Record:
    """A new image; a primary one takes the place of the present primary. The property must be locked."""
    if is_primary:
        await execute(conn, SQL.clear_primary_image, property_id)
    return await fetch_existing(
        conn, SQL.create_property_image, property_id, url, file_id, thumbnail_file_id, title, description, order,
        is_primary,
    )  # fmt: skip


async def delete_image(conn: Connection, property_id: int, image_id: int) -> Record:
    """The image that was removed. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.delete_property_image, property_id, image_id)


async def list_valuations(conn: Connection, property_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_property_valuations, property_id, limit, offset)


async def create_valuation(
    conn: Connection, property_id: int, value: Any, valuation_date: date, source: str | None, notes: str | None
) -> Record:
    return await fetch_existing(conn, SQL.create_property_valuation, property_id, value, valuation_date, source, notes)


async def list_notes(conn: Connection, property_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_property_notes, property_id, limit, offset)


async def create_note(conn: Connection, property_id: int, content: str) -> Record:
    return await fetch_existing(conn, SQL.create_property_note, property_id, content)


async def list_activities(conn: Connection, property_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_property_activities, property_id, limit, offset)


async def create_activity(
    conn: Connection, property_id: int, activity_type: str, description: str, metadata: dict[str, Any]
) -> Record:
    return await fetch_existing(conn, SQL.create_property_activity, property_id, activity_type, description, metadata)
