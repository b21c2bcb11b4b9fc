"""Ids in bodies: whether they lead to something that the tenant has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reos.db import Connection, fetch_all
from reos.errors import ValidationError
from reos.schemas.fields import FOREIGN_KEY_MESSAGE, FOREIGN_KEY_TYPE
from reos.sql import load

SQL = load("references")

# The fields that name another resource, and its kind. A field of another name is no reference.
KINDS = {
    "property_id": "property",
    "lead_id": "lead",
    "assigned_to": "user",
    "user_id": "user",
    "template_id": "template",
}


async def check_references(conn: Connection, fields: Mapping[str, Any]) -> None:
    """Raises ValidationError (422) for every field of `fields` whose id leads nowhere; null ones are fine.

    Foreign keys alone would not do: they see deleted rows, and tell of one field only.
    """
    given = [
        {"field": field, "kind": kind, "id": fields[field]}
        for field, kind in KINDS.items()
        if fields.get(field) is not None
    ]
    missing = await fetch_all(conn, SQL.list_missing_references, given) if given else []
    if missing:
        raise ValidationError(
            errors=[
                {"field": row["field"], "message": FOREIGN_KEY_MESSAGE, "type": FOREIGN_KEY_TYPE} for row in missing
            ]
        )


def check_listed(field: str, ids: Sequence[int], found: Collection[int]) -> None:
    """Raises ValidationError (422) for every id of the list `field` that is not among those found, by its place."""
    places = [place for place, number in enumerate(ids) if number not in found]
    if places:
        raise ValidationError(
            errors=[
                {"field": f"{field}.{place}", "message": FOREIGN_KEY_MESSAGE, "type": FOREIGN_KEY_TYPE}
                for place in places
            ]
        )
