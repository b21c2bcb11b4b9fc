"""JSON as the service writes it: records as they are, money as strings, times in UTC with `Z`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg
import orjson

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def _encode_other(value: Any) -> Any:
    # A Decimal that reaches the encoder is money: queries cast every other numeric to float8.
    if isinstance(value, asyncpg.Record):
        return dict(zip(value.keys(), value, strict=True))  # A third faster than dict(value).
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any) -> bytes:
    """Serialise records, dicts and lists of them to UTF-8 JSON."""
    return orjson.dumps(value, default=_encode_other, option=_OPTIONS)


def canonical(value: Any) -> bytes:
    """The same for all values that JSON does not tell apart: the fields of objects in order."""
    return orjson.dumps(value, default=_encode_other, option=_OPTIONS | orjson.OPT_SORT_KEYS)


def loads(data: bytes | str) -> Any:
    """Parse JSON that the service itself has written (never a request body)."""
    return orjson.loads(data)
