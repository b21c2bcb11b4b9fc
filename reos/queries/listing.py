"""Lists: filters, sort, and paging by key or by offset, as one statement whose text depends on the shape alone.

pypika builds the text; every value is a bound `$n`. A text is built once for each shape (which filters, which
sort, which kind of page) and kept, so that asyncpg's prepared statements are used again and again.

A nullable sort key is read as two range scans, the values and then the nulls, because neither the row
comparison (which loses the nulls) nor an OR (which reads everything) is served by the index.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pypika import Order, Query, Table
from pypika.queries import QueryBuilder
from pypika.terms import Criterion, EmptyCriterion, LiteralValue, Term

from reos import metrics
from reos.db import Connection
from reos.sql import named

FEW_ROWS = 50  # of which the longest that there may be fit into memory


class Condition(Criterion):
    """A hand-written condition among pypika's criteria."""

    def __init__(self, text: str):
        super().__init__()
        self.text = text

    def get_sql(self, **_: Any) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class SortKey:
    """What a list may be sorted by: an expression, whether it may be null, and whether it is a time."""

    expression: str
    is_nullable: bool = False
    is_time: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition over `arity` bound values, each given as its `$n`."""

    build: Callable[..., Condition]
    arity: int = 1


@dataclass(frozen=True, eq=False)
class Listing:
    """A table as a list: its select list (over the alias), sort keys, filters and a standing condition.

    `near` is an expression that becomes the item's `distance_km`; it stands with the filter of that name,
    which comes first, so its values are $1 and $2.
    """

    table: str
    alias: str
    columns: str
    sort_keys: Mapping[str, SortKey]
    filters: Mapping[str, Filter]
    always: str = ""
    near: str = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list: `after` (the key values of the last row seen, then its id) or `offset`."""

    limit: int
    sort: tuple[tuple[str, bool], ...]  # (key, descending)
    offset: int = 0
    after: tuple[Any, ...] | None = None
    include_total: bool = True
    max_text: int | None = None  # characters after which the page ends early, with a few rows more and at least one


@dataclass(frozen=True, slots=True)
class Rows:
    """A page: its items, the key values of the last of them when more follow, and the count of all."""

    items: list[dict[str, Any]]
    last: tuple[Any, ...] | None
    total: int | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that the text depends on."""

    filters: tuple[str, ...]
    sort: tuple[tuple[str, bool], ...]
    after_nulls: tuple[bool, ...] | None  # for each key of a cursor: is its value null?
    include_total: bool


async def fetch_page(
    conn: Connection, listing: Listing, values: Mapping[str, tuple[Any, ...]], page: PageRequest
) -> Rows:
    """One page of a list; `values` maps the names of the active filters to their bound values."""
    after_nulls = None if page.after is None else tuple(value is None for value in page.after[:-1])
    # A search has left out what its list leaves out, so without another filter it has counted already.
    is_counted = values.keys() == {"ids"}
    shape = _Shape(tuple(values), page.sort, after_nulls, page.include_total and not is_counted)
    args = [value for group in values.values() for value in group]
    if page.after is None:
        tail = [page.limit + 1, page.offset]
    else:
        tail = [page.limit + 1, 0, *(value for value in page.after if value is not None)]
    text = _page_text(listing, shape)
    if page.max_text is None:
        reading: Coroutine[Any, Any, Any] = conn.fetch(text, *args, *tail)
        found, is_cut = await metrics.timed(f"list_{listing.table}", reading), False
    else:
        reading = _fetch_some(conn, text, [*args, *tail], page.max_text)
        found, is_cut = await metrics.timed(f"list_{listing.table}", reading)
    total = None
    if shape.include_total:
        total = found[0]["_total"] if found else await conn.fetchval(_count_text(listing, shape.filters), *args)
    elif page.include_total:
        total = len(values["ids"][0])
    last = None
    shown = found[: page.limit]
    if is_cut or len(found) > page.limit:
        row = shown[-1]
        last = (*(row[f"_k{n}"] for n in range(len(page.sort))), row["id"])
    return Rows(_visible(shown, len(page.sort) + shape.include_total), last, total)


async def _fetch_some(conn: Connection, text: str, args: list[Any], max_text: int) -> tuple[list[Any], bool]:
    """The rows until they come to so many characters, and whether they do: then there may be more of them.

    They are read a few at a time, because a row may be as large as a request's body.
    """
    cursor = await conn.cursor(text, *args)
    found: list[Any] = []
    size = 0
    while part := await cursor.fetch(FEW_ROWS):
        found += part
        size += sum(len(value) for row in part for value in row if isinstance(value, str))
        if size >= max_text:
            return found, True
    return found, False


def _visible(rows: list[Any], hidden: int) -> list[dict[str, Any]]:
    """The rows without the sort keys and the count, which stand last."""
    names = tuple(rows[0].keys())[:-hidden] if rows else ()
    return [dict(zip(names, row, strict=False)) for row in rows]


@lru_cache(maxsize=2048)
def _page_text(listing: Listing, shape: _Shape) -> str:
    """The statement of a shape. Parameters: the filters' values, limit, offset, the cursor's values."""
    first_free = 1 + sum(listing.filters[name].arity for name in shape.filters)
    limit, offset = f"${first_free}::bigint", f"${first_free + 1}::bigint"
    scans = _scans(listing, shape, first_free + 2)
    # The count is one uncorrelated subquery in the select list: it is evaluated once.
    total = LiteralValue(f"({_count_text(listing, shape.filters)}) as _total")
    if len(scans) == 1:
        query = scans[0].select(total) if shape.include_total else scans[0]
        return named(f"list_{listing.table}", f"{query} LIMIT {limit} OFFSET {offset}")
    parts = " UNION ALL ".join(f"({scan} LIMIT {limit} + {offset})" for scan in scans)
    direction = "DESC" if shape.sort[0][1] else "ASC"
    return named(
        f"list_{listing.table}",
        f"SELECT page.*{f', {total}' if shape.include_total else ''} FROM ({parts}) page"  # noqa: S608 - no values
        f" ORDER BY page._k0 {direction} NULLS LAST, page.id {direction} LIMIT {limit} OFFSET {offset}",
    )


@lru_cache(maxsize=2048)
def _count_text(listing: Listing, filters: tuple[str, ...]) -> str:
    return str(_filtered(listing, filters).select(LiteralValue("count(*)")))


def _filtered(listing: Listing, filters: tuple[str, ...]) -> QueryBuilder:
    table = Table(listing.table).as_(listing.alias)
    query = Query.from_(table)
    if listing.always:
        query = query.where(Condition(listing.always))
    number = 1
    for name in filters:
        entry = listing.filters[name]
        bound = [f"${number + n}" for n in range(entry.arity)]
        query = query.where(entry.build(*bound))
        number += entry.arity
    return query


def _scans(listing: Listing, shape: _Shape, first: int) -> list[QueryBuilder]:
    """The range scans of a page, each in index order: one, or values and nulls of a single nullable key."""
    keys = [listing.sort_keys[name] for name, _ in shape.sort]
    columns = [LiteralValue(listing.columns)]
    if listing.near and "near" in shape.filters:
        columns.append(LiteralValue(f"round(({listing.near})::numeric, 2)::float8 as distance_km"))
    columns += [LiteralValue(f"{key.expression} as _k{n}") for n, key in enumerate(keys)]
    base = _filtered(listing, shape.filters).select(*columns)
    row_id = LiteralValue(f"{listing.alias}.id")
    if len(keys) > 1:
        if shape.after_nulls is not None:
            base = base.where(_after_many(keys, shape, first, row_id))
        for key, (_, is_descending) in zip(keys, shape.sort, strict=True):
            nulls = " NULLS LAST" if key.is_nullable else ""
            base = base.orderby(LiteralValue(f"{key.expression} {'DESC' if is_descending else 'ASC'}{nulls}"))
        return [base.orderby(row_id, order=_order(shape.sort[-1][1]))]
    return _single_key_scans(base, keys[0], shape, first, row_id)


def _single_key_scans(base: QueryBuilder, key: SortKey, shape: _Shape, first: int, row_id: Term) -> list[QueryBuilder]:
    is_descending = shape.sort[0][1]
    sign, order = ("<" if is_descending else ">"), _order(is_descending)
    column = LiteralValue(key.expression)
    after_null = shape.after_nulls == (True,)
    scans = []
    if not after_null:
        values = base.where(Condition(f"{key.expression} is not null")) if key.is_nullable else base
        if shape.after_nulls is not None:
            values = values.where(Condition(f"({key.expression}, {row_id}) {sign} (${first}, ${first + 1})"))
        scans.append(values.orderby(column, order=order).orderby(row_id, order=order))
    if key.is_nullable:
        nulls = base.where(Condition(f"{key.expression} is null"))
        if after_null:
            nulls = nulls.where(Condition(f"{row_id} {sign} ${first}"))
        # The key, although it is null in all of them, because only so the planner sees the order of the index.
        scans.append(nulls.orderby(column, order=order).orderby(row_id, order=order))
    return scans


def _after_many(keys: list[SortKey], shape: _Shape, first: int, row_id: Term) -> Criterion:
    """What follows a row in the order of several keys, nulls last: equal up to one key, then behind it."""
    assert shape.after_nulls is not None
    behind: Criterion = EmptyCriterion()
    equal: Criterion = EmptyCriterion()
    number = first
    for key, (_, is_descending), is_null in zip(keys, shape.sort, shape.after_nulls, strict=True):
        if is_null:
            equal &= Condition(f"{key.expression} is null")
            continue
        sign = "<" if is_descending else ">"
        nulls = f" or {key.expression} is null" if key.is_nullable else ""
        behind |= equal & Condition(f"({key.expression} {sign} ${number}{nulls})")
        equal &= Condition(f"{key.expression} = ${number}")
        number += 1
    sign = "<" if shape.sort[-1][1] else ">"
    return behind | (equal & Condition(f"{row_id} {sign} ${number}"))


def _order(is_descending: bool) -> Order:
    return Order.desc if is_descending else Order.asc


def condition(template: str, arity: int = 1) -> Filter:
    """A filter from a condition with `{}` where its bound values go."""
    return Filter(lambda *bound: Condition(template.format(*bound)), arity)


def text_condition(template: str) -> Filter:
    """A filter by a pattern, which no index serves: the list index shall drive, and the pattern filter.

    The planner takes a pattern for rarer the longer it is, and would rather read and sort all rows of the organisation.
    Of what `coalesce` gives it knows nothing and takes it for half.
    """
    return condition(f"coalesce({template}, false)")


def escape_like(text: str) -> str:
    """The text as plain characters of a LIKE pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def contains_pattern(text: str) -> str:
    """The LIKE pattern of all that contains the text, in lower case."""
    return f"%{escape_like(lower(text))}%"


def lower(text: str) -> str:
    """The text in lower case as Postgres has it: character by character, without Python's final sigma."""
    return "".join(character.lower()[0] for character in text)


async def fetch_ids(conn: Connection, listing: Listing, values: Mapping[str, tuple[Any, ...]]) -> list[int]:
    """The ids of all that the filters let through; `values` as for `fetch_page`."""
    args = [value for group in values.values() for value in group]
    reading = conn.fetch(_ids_text(listing, tuple(values)), *args)
    return [row[0] for row in await metrics.timed(f"ids_of_{listing.table}", reading)]


@lru_cache(maxsize=256)
def _ids_text(listing: Listing, filters: tuple[str, ...]) -> str:
    query = _filtered(listing, filters).select(LiteralValue(f"{listing.alias}.id"))
    return named(f"ids_of_{listing.table}", str(query))
