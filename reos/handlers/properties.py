"""Properties, their images, valuations, notes and activities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sanic import Blueprint

from reos.db import Connection, Record
from reos.errors import PropertyNotAvailableError, ResourceDeletionError, ResourceNotFoundError, ValidationError
from reos.handlers import exports, images
from reos.handlers.changes import differing
from reos.handlers.paging import array, check_fields, envelope, page_request, parse_sort
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import CSV, PREFIX, delete, get, post, put
from reos.queries import audit, deals, organizations, stored_files
from reos.queries import properties as queries
from reos.queries.listing import PageRequest, Rows
from reos.schemas.common import SubListQuery, patch_of, to_date
from reos.schemas.properties import (
    Activity,
    ActivityCreate,
    Image,
    ImageCreate,
    ImageUpload,
    Note,
    NoteCreate,
    Property,
    PropertyCreate,
    PropertyExportQuery,
    PropertyFilters,
    PropertyItem,
    PropertyPage,
    PropertyQuery,
    PropertyUpdate,
    Valuation,
    ValuationCreate,
)

bp = Blueprint("properties")

DEFAULT_RADIUS_KM = 10.0
_ITEM_FIELDS = tuple(PropertyItem.model_fields)
_POINT = re.compile(r"([+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?) ?, ?([+-]?[0-9]{1,3}(?:\.[0-9]{1,20})?)")
_NOT_FILTERS = frozenset({"search", "near", "radius_km"})


@post(bp, "/properties", "property:create", response=Property, is_tagged=True)
async def create_property(call: Call, body: PropertyCreate) -> Answer:
    """Create a property."""
    created = await queries.create(call.conn, body.model_dump())
    call.audit("create", "property", created["id"], audit.created(created))
    call.publish("property.created", created["id"], created)
    return call.created(created, f"{PREFIX}/properties/{created['id']}")


@get(bp, "/properties", "property:read", response=PropertyPage)
async def list_properties(call: Call, query: PropertyQuery) -> dict[str, Any]:
    """List properties by filter, search words or distance."""
    check_fields(query, _ITEM_FIELDS)
    near = _near(query)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, _default_sort(near))
    _check_sort(page.sort, near)
    rows = await queries.list_properties(call.conn, page, _plain(filters), search=query.search, near=near)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/properties/export", "property:read report:export", produces=CSV, writes_on_get=True)
async def export_properties(call: Call, query: PropertyExportQuery) -> Answer:
    """Export properties as a CSV file, by the filters and the sort of the list.

    Its columns are the fields of the list's items; metadata and features are JSON.
    """
    near = _near(query)
    filters = query.active_filters()
    sort = parse_sort(queries.EXPORT, query.sort or _default_sort(near))
    _check_sort(sort, near)

    async def fetch(conn: Connection, page: PageRequest) -> Rows:
        return await queries.list_properties(
            conn, page, _plain(filters), search=query.search, near=near, listing=queries.EXPORT
        )

    columns = _ITEM_FIELDS if near else tuple(Property.model_fields)
    asked = query.model_dump(exclude_unset=True)
    return await exports.answer(call, "properties", "property", columns, sort, fetch, asked)


@get(bp, "/properties/{property_id}", "property:read", response=Property)
async def get_property(call: Call, property_id: int) -> Record:
    """Get a property."""
    return await queries.get(call.conn, property_id)


@put(bp, "/properties/{property_id}", "property:update", response=Property)
async def update_property(call: Call, property_id: int, body: PropertyUpdate) -> Record:
    """Change what is sent of a property. While a deal holds it, its status follows the deal."""
    before = await queries.lock(call.conn, property_id)
    call.if_match(before)
    patch = differing(before, patch_of(body))
    if not patch:
        return before
    if "status" in patch and await queries.is_held(call.conn, property_id):
        raise PropertyNotAvailableError("A deal has the property under contract; its status follows the deal.")
    after = await queries.update(call.conn, property_id, patch)
    call.audit("update", "property", property_id, audit.changed(before, after))
    call.publish("property.updated", property_id, after)
    return after


@delete(bp, "/properties/{property_id}", "property:delete")
async def delete_property(call: Call, property_id: int) -> Answer:
    """Delete a property softly; a restore undoes it. One with an open deal stays."""
    before = await queries.lock(call.conn, property_id)
    call.if_match(before)
    if await deals.has_open(call.conn, property_id):
        raise ResourceDeletionError("The property has an open deal.")
    await queries.delete(call.conn, property_id)
    call.audit("delete", "property", property_id)
    call.publish("property.deleted", property_id, {"property_id": property_id})
    return NO_CONTENT


@post(bp, "/properties/{property_id}/restore", "property:update", response=Property, status=200, is_tagged=True)
async def restore_property(call: Call, property_id: int) -> Record:
    """Undo the deletion of a property."""
    await queries.lock_deleted(call.conn, property_id)
    restored = await queries.restore(call.conn, property_id)
    call.audit("restore", "property", property_id)
    call.publish("property.updated", property_id, restored)
    return restored


@get(bp, "/properties/{property_id}/images", "property:read", response=list[Image])
async def list_property_images(call: Call, property_id: int, query: SubListQuery) -> Answer:
    """List the pictures, the primary one first."""
    await queries.require(call.conn, property_id)
    items, total = await queries.list_images(call.conn, property_id, query.limit, query.offset)
    return array(([images.present(call, item) for item in items], total))


@post(
    bp, "/properties/{property_id}/images", "property:update", response=Image, form=ImageUpload,
    prepare=images.store_upload,
)  # fmt: skip
async def create_property_image(call: Call, property_id: int, body: ImageCreate | ImageUpload) -> Answer:
    """Add a picture: a link as JSON, or a file as multipart/form-data."""
    await queries.lock(call.conn, property_id)
    upload: images.StoredImage | None = call.prepared
    if upload is None and isinstance(body, ImageUpload):
        # When the file came, the property was not there.
        raise ResourceNotFoundError
    created = await queries.create_image(
        call.conn,
        property_id,
        url=body.url if isinstance(body, ImageCreate) else None,
        file_id=upload.file_id if upload else None,
        thumbnail_file_id=upload.thumbnail_file_id if upload else None,
        title=body.title,
        description=body.description,
        order=body.order,
        is_primary=body.is_primary,
    )
    if upload:
        await stored_files.use(call.conn, [upload.file_id, upload.thumbnail_file_id])
    image = images.present(call, created)
    call.audit("create", "property_image", image["id"], audit.created(image))
    return call.created(image, f"{PREFIX}/properties/{property_id}/images/{image['id']}")


@delete(bp, "/properties/{property_id}/images/{image_id}", "property:update")
async def delete_property_image(call: Call, property_id: int, image_id: int) -> Answer:
    """Remove a picture, with its file."""
    await queries.require(call.conn, property_id)
    removed = await queries.delete_image(call.conn, property_id, image_id)
    file_ids = [removed[name] for name in ("file_id", "thumbnail_file_id") if removed[name] is not None]
    if file_ids:
        await stored_files.abandon(call.conn, file_ids)
    call.audit("delete", "property_image", image_id)
    return NO_CONTENT


@get(bp, "/properties/{property_id}/valuations", "property:read", response=list[Valuation])
async def list_property_valuations(call: Call, property_id: int, query: SubListQuery) -> Answer:
    """List the valuations, newest first."""
    await queries.require(call.conn, property_id)
    return array(await queries.list_valuations(call.conn, property_id, query.limit, query.offset))


@post(bp, "/properties/{property_id}/valuations", "property:update", response=Valuation)
async def create_property_valuation(call: Call, property_id: int, body: ValuationCreate) -> Answer:
    """Add a valuation."""
    await queries.require(call.conn, property_id)
    day = to_date(body.valuation_date, await organizations.get_time_zone(call.conn))
    created = await queries.create_valuation(call.conn, property_id, body.value, day, body.source, body.notes)
    return _created_below(call, property_id, "valuation", created)


@get(bp, "/properties/{property_id}/notes", "property:read", response=list[Note])
async def list_property_notes(call: Call, property_id: int, query: SubListQuery) -> Answer:
    """List the notes, newest first."""
    await queries.require(call.conn, property_id)
    return array(await queries.list_notes(call.conn, property_id, query.limit, query.offset))


@post(bp, "/properties/{property_id}/notes", "property:update", response=Note)
async def create_property_note(call: Call, property_id: int, body: NoteCreate) -> Answer:
    """Add a note."""
    await queries.require(call.conn, property_id)
    return _created_below(call, property_id, "note", await queries.create_note(call.conn, property_id, body.content))


@get(bp, "/properties/{property_id}/activities", "property:read", response=list[Activity])
async def list_property_activities(call: Call, property_id: int, query: SubListQuery) -> Answer:
    """List the activities, newest first."""
    await queries.require(call.conn, property_id)
    return array(await queries.list_activities(call.conn, property_id, query.limit, query.offset))


@post(bp, "/properties/{property_id}/activities", "property:update", response=Activity)
async def create_property_activity(call: Call, property_id: int, body: ActivityCreate) -> Answer:
    """Add an activity."""
    await queries.require(call.conn, property_id)
    created = await queries.create_activity(call.conn, property_id, body.activity_type, body.description, body.metadata)
    return _created_below(call, property_id, "activity", created)


def _created_below(call: Call, property_id: int, kind: str, created: Mapping[str, Any]) -> Answer:
    """The audit row and the answer of a new sub-resource."""
    call.audit("create", f"property_{kind}", created["id"], audit.created(created))
    plural = {"activity": "activities"}.get(kind, f"{kind}s")
    return call.created(created, f"{PREFIX}/properties/{property_id}/{plural}/{created['id']}")


def _plain(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters by what stands in one column."""
    return {name: value for name, value in filters.items() if name not in _NOT_FILTERS}


def _default_sort(near: tuple[float, float, float] | None) -> str:
    return "distance" if near else "-created_at"


def _check_sort(sort: exports.Sort, near: tuple[float, float, float] | None) -> None:
    """Raises ValidationError for a sort by distance from nowhere."""
    if near is None and any(name == "distance" for name, _ in sort):
        raise ValidationError.of("sort", "distance needs near", "distance_without_near")


def _near(query: PropertyFilters) -> tuple[float, float, float] | None:
    """Latitude, longitude and radius in km. Raises ValidationError."""
    if query.near is None:
        return None
    found = _POINT.fullmatch(query.near)
    latitude, longitude = (float(part) for part in found.groups()) if found else (91.0, 181.0)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValidationError.of("near", "Input should be latitude,longitude in degrees", "near")
    radius = DEFAULT_RADIUS_KM if query.radius_km is None else float(query.radius_km)
    return latitude, longitude, radius
