"""What of a patch would change a resource."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from reos import encoding


def differing(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the patch that is not so already: a patch that changes nothing writes nothing."""
    return {name: value for name, value in patch.items() if not _same(before[name], value)}


def _same(before: Any, value: Any) -> bool:
    if isinstance(before, float) and isinstance(value, Decimal):
        return before == float(value)
    if isinstance(before, list | dict):
        # As JSON, because True and 1 are equal in Python only. The order of an object's fields means nothing.
        return encoding.canonical(before) == encoding.canonical(value)
    return bool(before == value)
