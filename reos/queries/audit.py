"""Audit rows: what changed, in the form that `queries/events.record_changes` writes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_UNINTERESTING = frozenset({"id", "organization_id", "created_at", "updated_at", "created_by"})


def created(after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The changes of a new resource: every field that is set, before it null."""
    return {
        field: [None, plain(value)]
        for field, value in after.items()
        if value is not None and field not in _UNINTERESTING
    }


def deleted(before: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The changes of a resource that is gone for good: every field that was set, after it null."""
    return {field: [value, None] for field, (_, value) in created(before).items()}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The fields that differ, with their value before and after."""
    return {
        field: [plain(before.get(field)), plain(value)]
        for field, value in after.items()
        if field not in _UNINTERESTING and before.get(field) != value
    }


def plain(value: Any) -> Any:
    """A value as it stands in JSON answers."""
    return format(value, "f") if isinstance(value, Decimal) else value
