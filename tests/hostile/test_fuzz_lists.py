"""Lists: any filters with any sort, against a few lines of Python over the same rows; and cursors that were changed.

The rows differ in everything, with nulls and ties in every sort key. Pages that are joined by their cursors are the
whole list: exactly the rows that the filters let through, in the right order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from api import Api, Client
from fuzzing import fuzz
from hypothesis import assume, given
from hypothesis import strategies as st

pytestmark = [pytest.mark.integration, pytest.mark.property, pytest.mark.slow]

ROWS = 26
Item = dict[str, Any]
Model = Callable[[Item, Any], bool]


@dataclass(frozen=True)
class Kind:
    """A list: its path, what may be asked of it with what that means, and what it may be sorted by."""

    path: str
    filters: dict[str, tuple[st.SearchStrategy[Any], Model]]
    sorts: tuple[str, ...]
    searched: tuple[str, ...]
    decimals: frozenset[str]


def number(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def at_least(field: str) -> Model:
    return lambda item, bound: item[field] is not None and Decimal(str(item[field])) >= Decimal(str(bound))


def at_most(field: str) -> Model:
    return lambda item, bound: item[field] is not None and Decimal(str(item[field])) <= Decimal(str(bound))


def equals(field: str) -> Model:
    return lambda item, value: item[field] == value


def contains(field: str) -> Model:
    return lambda item, text: text.strip().lower() in item[field].lower()


PRICES = st.sampled_from(("0", "100.5", "100.50", "300.50", "300.51", "600.5", "9999999999.99"))
PROPERTIES = Kind(
    "/properties",
    {
        "city": (
            st.sampled_from(("austin", "BOS", "ü", "Ü", "%", "_", "\\", "on", "0%_s", "nowhere")),
            contains("city"),
        ),
        "state": (st.sampled_from(("TX", "t", "exa", "ma", "M")), contains("state")),
        "zip_code": (st.sampled_from(("78700", "78701", "787", "0")), equals("zip_code")),
        "property_type": (st.sampled_from(("condo", "land", "commercial")), equals("property_type")),
        "status": (st.sampled_from(("available", "sold", "rented")), equals("status")),
        "min_price": (PRICES, at_least("price")),
        "max_price": (PRICES, at_most("price")),
        "min_bedrooms": (st.integers(0, 3), at_least("bedrooms")),
        "max_bedrooms": (st.integers(0, 3), at_most("bedrooms")),
        "min_bathrooms": (st.sampled_from(("0", "1.5", "2", "9.9")), at_least("bathrooms")),
        "min_square_feet": (st.integers(999, 1006), at_least("square_feet")),
        "max_square_feet": (st.integers(999, 1006), at_most("square_feet")),
    },
    ("created_at", "updated_at", "price", "bedrooms", "square_feet", "year_built", "city", "status"),
    ("address", "city", "state", "zip_code", "description"),
    frozenset({"price"}),
)
LEADS = Kind(
    "/leads",
    {
        "source": (st.sampled_from(("website", "referral", "event")), equals("source")),
        "status": (st.sampled_from(("new", "qualified", "lost")), equals("status")),
        "min_score": (st.integers(0, 100), at_least("score")),
        "max_score": (st.integers(0, 100), at_most("score")),
    },
    ("created_at", "updated_at", "score", "budget", "last_contacted_at", "last_name", "status"),
    ("first_name", "last_name", "email", "phone", "company"),
    frozenset({"budget"}),
)
DEALS = Kind(
    "/deals",
    {
        "stage": (st.sampled_from(("lead", "qualified", "closed_lost")), equals("stage")),
        "deal_type": (st.sampled_from(("buy", "sell", "lease")), equals("deal_type")),
        "min_value": (PRICES, at_least("value")),
        "max_value": (PRICES, at_most("value")),
    },
    ("created_at", "updated_at", "value", "probability", "expected_close_date", "closed_at", "stage"),
    ("notes",),
    frozenset({"value"}),
)
KINDS = (PROPERTIES, LEADS, DEALS)
CITIES = ("Austin", "austin heights", "Boston", "Boston", "Z\u00fcrich", "100%_sure")


def house(n: int) -> Item:
    return {
        "address": f"{n} Main St", "city": CITIES[n % 6], "state": ("TX", "Texas", "MA")[n % 3],
        "zip_code": f"{78700 + n % 4}", "price": None if n % 5 == 0 else f"{(n % 7) * 100}.50",
        "bedrooms": None if n % 4 == 0 else n % 3, "bathrooms": None if n % 3 == 0 else (n % 4) + 0.5,
        "square_feet": None if n % 6 == 0 else 1000 + n % 5, "year_built": None if n % 2 == 0 else 1900 + n % 8,
        "status": ("available", "sold", "rented")[n % 3], "property_type": ("condo", "land")[n % 2],
        "description": f"Nice place number {n}" if n % 2 else None,
    }  # fmt: skip


def person(n: int) -> Item:
    return {
        "first_name": ("Ann", "Bob", "Zo\u00eb")[n % 3], "last_name": ("Miller", "miller", "\u00c4rger", "100%")[n % 4],
        "email": None if n % 4 == 0 else f"person{n}@example.com", "phone": f"+1 555 {n:04}" if n % 3 else None,
        "company": ("Acme", None, "A_B")[n % 3], "source": ("website", "referral")[n % 2],
        "status": ("new", "qualified", "lost")[n % 3], "score": (n * 7) % 30,
        "budget": None if n % 3 == 0 else f"{(n % 4) * 1000}.00",
    }  # fmt: skip


def deal(n: int, property_id: int) -> Item:
    return {
        "property_id": property_id, "deal_type": ("buy", "sell", "lease")[n % 3], "value": f"{(n % 6) * 100}.50",
        "stage": ("lead", "qualified", "closed_lost")[n % 3], "probability": (n * 3) % 5 * 10,
        "expected_close_date": None if n % 3 == 0 else f"2026-03-0{1 + n % 4}", "notes": f"note {n}" if n % 2 else None,
    }  # fmt: skip


@dataclass(frozen=True)
class Market:
    """An organisation with rows of every kind, as the API gives each, and a loop to ask it on."""

    loop: asyncio.AbstractEventLoop
    client: Client
    items: dict[str, list[Item]]

    def get(self, kind: Kind, **params: Any) -> Any:
        return self.loop.run_until_complete(self.client.get(kind.path, params=params))


async def _fill(api: Api) -> tuple[Client, dict[str, list[Item]]]:
    admin = await api.register()
    houses = [await admin.post("/properties", json=house(n)) for n in range(ROWS)]
    free = next(entry["id"] for entry in houses if entry["status"] == "available")
    for n in range(ROWS):
        lead = await admin.post("/leads", json=person(n))
        if n % 3 == 1:
            call = {"activity_type": "call", "description": "x", "completed_at": f"2026-01-0{1 + n % 5}T00:00:00Z"}
            await admin.post(f"/leads/{lead['id']}/activities", json=call)
        await admin.post("/deals", json=deal(n, free))
    return admin, {kind.path: (await admin.get(kind.path, params={"page_size": 100}))["items"] for kind in KINDS}


@pytest.fixture(scope="module")
def market(loop: asyncio.AbstractEventLoop, api: Api) -> Market:
    return Market(loop, *loop.run_until_complete(_fill(api)))


@pytest.fixture(scope="module")
def other(loop: asyncio.AbstractEventLoop, api: Api) -> Market:
    """Another organisation with the same rows."""
    return Market(loop, *loop.run_until_complete(_fill(api)))


def expected_ids(items: list[Item], kind: Kind, filters: dict[str, Any], search: str, sort: list[str]) -> list[int]:
    """What the contract says, done naively: nulls last in both directions, ties by id as the last key goes."""
    words = [word.rstrip(",;") or word for word in search.lower().split()]

    def is_wanted(item: Item) -> bool:
        text = " ".join(str(item[name] or "") for name in kind.searched).lower()
        found = all(word in text for word in words)
        return found and all(kind.filters[name][1](item, value) for name, value in filters.items())

    found = sorted(filter(is_wanted, items), key=lambda item: int(item["id"]), reverse=sort[-1].startswith("-"))
    for key in reversed(sort):
        name = key.removeprefix("-")
        present = [item for item in found if item[name] is not None]
        present.sort(
            key=lambda item: number(item[name]) if name in kind.decimals else item[name],
            reverse=key.startswith("-"),
        )
        found = present + [item for item in found if item[name] is None]
    return [item["id"] for item in found]


WORDS = st.sampled_from(
    ("main", "MAIN", "st", "Nice", "number", "1", "10", "787", "austin", "%", "_", "\\", "z\u00fcr", "o", "xyzzy",
     "ann", "mill", "@example", "555", "acme", "note", "zo\u00eb", "person1", "a_b", "100%", "nowhere,")
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> tuple[Kind, dict[str, Any], str, list[str], int]:
    """A kind of list, some of its filters, a search, one to three sort keys, and the size of a page."""
    kind = draw(st.sampled_from(KINDS))
    names = draw(st.lists(st.sampled_from(sorted(kind.filters)), unique=True, max_size=3))
    filters = {name: draw(kind.filters[name][0]) for name in names}
    # What a deal's own columns do not hold is searched elsewhere; its notes will do.
    search = draw(st.just("") | (st.just("note") if kind is DEALS else st.lists(WORDS, max_size=2).map(" ".join)))
    keys = draw(st.lists(st.sampled_from(kind.sorts), unique=True, min_size=1, max_size=3))
    return kind, filters, search, [draw(st.sampled_from(("", "-"))) + key for key in keys], draw(st.integers(1, 9))


@fuzz(90)
@given(question=questions())
def test_a_list_is_what_the_contract_says(
    market: Market, question: tuple[Kind, dict[str, Any], str, list[str], int]
) -> None:
    kind, filters, search, sort, size = question
    expected = expected_ids(market.items[kind.path], kind, filters, search, sort)
    params = {**filters, "sort": ",".join(sort)} | ({"search": search} if search else {})
    whole = market.get(kind, **params, page_size=100)
    assert [item["id"] for item in whole["items"]] == expected
    assert (whole["total"], whole["has_more"]) == (len(expected), False)
    found: list[int] = []
    more: dict[str, Any] = {}
    while True:
        page = market.get(kind, **params, **more, limit=size, fields="id")
        assert page["total"] == len(expected) and len(page["items"]) <= size
        found += [item["id"] for item in page["items"]]
        assert len(found) <= len(expected)
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert found == expected
    by_offset = market.get(kind, **params, skip=size, limit=size, include_total="false")
    assert [item["id"] for item in by_offset["items"]] == expected[size : 2 * size]


CHANGES = st.tuples(st.integers(0, 300), st.integers(0, 3), st.text("ABab01-_=.+/ %\x7f\xe9", max_size=4))


@fuzz(200)
@given(
    kind=st.sampled_from(KINDS),
    key=st.integers(0, 6),
    changes=st.lists(CHANGES, max_size=2),
    asked=st.sampled_from(("same", "size", "sort", "direction", "filter", "list", "organisation")),
)
def test_a_cursor_goes_on_with_its_own_list_alone(
    market: Market, other: Market, kind: Kind, key: int, changes: list[tuple[int, int, str]], asked: str
) -> None:
    sort = kind.sorts[key]
    cursor = market.get(kind, sort=sort, page_size=3)["next_cursor"]
    changed = cursor
    for place, length, put in changes:
        start = place % (len(changed) + 1)
        changed = changed[:start] + put + changed[start + length :]
    params: dict[str, Any] = {"sort": sort, "page_size": 3, "cursor": changed}
    asking, where = market, kind
    match asked:
        case "size":
            params |= {"page_size": 5, "include_total": "false"}
        case "sort":
            params["sort"] = kind.sorts[(key + 1) % len(kind.sorts)]
        case "direction":
            params["sort"] = f"-{sort}"
        case "filter":
            params["status" if kind is not DEALS else "stage"] = "lead" if kind is DEALS else "new"
        case "list":
            where = KINDS[(KINDS.index(kind) + 1) % len(KINDS)]
            assume(sort in where.sorts)
        case "organisation":
            asking = other
    if kind is PROPERTIES and asked == "filter":
        params["status"] = "sold"
    response = asking.loop.run_until_complete(asking.client.request("GET", where.path, params=params))
    # A list's parameters are trimmed like all text.
    if changed.strip() == cursor and asked in ("same", "size"):
        assert response.status_code == 200
        expected = expected_ids(market.items[kind.path], kind, {}, "", [sort])
        assert [item["id"] for item in response.json()["items"]] == expected[3 : 3 + params["page_size"]]
    else:
        assert response.status_code == 422
        assert {entry["field"] for entry in response.json()["error"]["details"]["errors"]} == {"cursor"}
