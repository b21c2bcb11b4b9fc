"""List envelopes, cursors and plain arrays: from the query's parameters to a page and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

from reos import encoding
from reos.errors import ValidationError
from reos.middleware.call import Answer, Call
from reos.queries.listing import Listing, PageRequest, Rows
from reos.queries.sublists import SubList
from reos.schemas.common import ListQuery

PURPOSE = "cursor"
MAX_SORT_KEYS = 4


def page_request(
    call: Call, listing: Listing, query: ListQuery, filters: Mapping[str, Any], default: str
) -> PageRequest:
    """What the list parameters ask for. Raises ValidationError for a sort or cursor that is none."""
    sort = parse_sort(listing, query.sort or default)
    after = None
    if query.cursor is not None:
        after = _open_cursor(call, listing, sort, query.cursor, _digest(call, listing, sort, filters))
    return PageRequest(
        limit=query.effective_limit,
        sort=sort,
        offset=query.effective_offset,
        after=after,
        include_total=query.include_total,
    )


def envelope(
    call: Call, listing: Listing, query: ListQuery, filters: Mapping[str, Any], page: PageRequest, rows: Rows
) -> dict[str, Any]:
    """The list envelope of the contract. A page by cursor has no number."""
    is_keyed = page.after is not None
    next_cursor = None
    if rows.last is not None:
        next_cursor = _seal_cursor(call, rows.last, _digest(call, listing, page.sort, filters))
    pages = None
    if rows.total is not None and not is_keyed:
        pages = -(-rows.total // page.limit)
    return {
        "items": _only(rows.items, query.fields),
        "total": rows.total,
        "page": None if is_keyed else page.offset // page.limit + 1,
        "page_size": page.limit,
        "pages": pages,
        "has_more": rows.last is not None,
        "next_cursor": next_cursor,
    }


def check_fields(query: ListQuery, known: Sequence[str]) -> None:
    """Raises ValidationError when `fields` names what the items do not have."""
    unknown = [name for name in query.fields or () if name not in known]
    if unknown:
        raise ValidationError.of("fields", f"unknown field: {unknown[0][:50]}", "unknown_field")


def array(sublist: SubList) -> Answer:
    """A plain array with the count of all in a header."""
    items, total = sublist
    return Answer(200, items, {"X-Total-Count": str(total)})


def _only(items: list[dict[str, Any]], fields: Sequence[str] | None) -> list[dict[str, Any]]:
    if not fields:
        return items
    return [{name: item[name] for name in fields if name in item} for item in items]


def parse_sort(listing: Listing, text: str) -> tuple[tuple[str, bool], ...]:
    """The keys that a list shall be sorted by, each with whether downwards. Raises ValidationError."""
    keys: list[tuple[str, bool]] = []
    for part in text.split(","):
        name = part.strip().removeprefix("-")
        if name not in listing.sort_keys or name in (known for known, _ in keys):
            allowed = ", ".join(sorted(listing.sort_keys))
            raise ValidationError.of("sort", f"each once of: {allowed}", "unknown_sort_key")
        keys.append((name, part.strip().startswith("-")))
    if len(keys) > MAX_SORT_KEYS:
        raise ValidationError.of("sort", f"at most {MAX_SORT_KEYS} keys", "too_many_sort_keys")
    return tuple(keys)


def _digest(call: Call, listing: Listing, sort: tuple[tuple[str, bool], ...], filters: Mapping[str, Any]) -> str:
    """What a cursor belongs to: this organisation, list, sort and filters."""
    organization_id = call.principal.organization_id if call.principal else 0
    known = [organization_id, listing.table, sort, {name: str(value) for name, value in sorted(filters.items())}]
    return blake2b(encoding.dumps(known), digest_size=12).hexdigest()


def _seal_cursor(call: Call, last: tuple[Any, ...], digest: str) -> str:
    return call.context.signer.seal_text(PURPOSE, encoding.dumps([digest, *last]).decode())


def _open_cursor(
    call: Call, listing: Listing, sort: tuple[tuple[str, bool], ...], cursor: str, digest: str
) -> tuple[Any, ...]:
    text = call.context.signer.open_text(PURPOSE, cursor)
    content = encoding.loads(text) if text is not None else [None]
    if content[0] != digest:
        raise ValidationError.of("cursor", "not a cursor of this list with this sort and these filters", "cursor")
    *values, row_id = content[1:]
    typed = (
        # JSON has carried times as text.
        datetime.fromisoformat(value) if value is not None and listing.sort_keys[name].is_time else value
        for (name, _), value in zip(sort, values, strict=True)
    )
    return (*typed, row_id)
