"""What the tables of the demo data do not say, made up: the same at each run for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from reos import demo

Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Listing:
    """A property that is offered, or was."""

    address: str
    town: str
    property_type: str
    status: str
    price: int  # USD
    bedrooms: int | None
    bathrooms: float | None
    square_feet: int | None
    lot_size: int | None
    year_built: int | None
    created_at: datetime
    closed_at: datetime | None = None  # when it was sold or let
    id: int = 0
    agent_id: int = 0


def random_for(*names: str) -> Random:
    """Numbers of their own for each purpose, so that a change of one table leaves the rest as it is."""
    return Random("/".join((str(demo.SEED), *names)))  # noqa: S311 - nothing secret hangs on them


def make_listings(organization: str, now: datetime) -> list[Listing]:
    """The listings of the table, with the times at which they were taken on."""
    rows = demo.LISTINGS[organization]
    closed = [row[0] for row in rows if row[3] in ("sold", "rented")]
    random_for("closed", organization).shuffle(closed)
    listings = []
    for row in rows:
        rng = random_for("listing", row[0])
        if row[0] in closed:
            # One after the other, so that no month is without.
            days = demo.CLOSED_DAYS * (closed.index(row[0]) + rng.uniform(0.05, 0.25)) / len(closed)
            closed_at = now - timedelta(seconds=round(days * 86400))
            listings.append(Listing(*row, created_at=before(closed_at, rng, 45, 105), closed_at=closed_at))
        else:
            earliest = {"off_market": 30, "under_contract": 45}.get(row[3], 3)
            listings.append(Listing(*row, created_at=before(now, rng, earliest, demo.DAYS)))
    return listings


def property_row(listing: Listing) -> dict[str, Any]:
    """The listing as a row of `properties`."""
    rng = random_for("property", listing.address)
    state, zip_code, latitude, longitude = demo.TOWNS[listing.town]
    features = demo.FEATURES[listing.property_type]
    return {
        "address": listing.address,
        "city": listing.town,
        "state": state,
        "zip_code": zip_code,
        "latitude": round(latitude + rng.gauss(0, 0.012), 6),
        "longitude": round(longitude + rng.gauss(0, 0.014), 6),
        "property_type": listing.property_type,
        "status": listing.status,
        "price": listing.price,
        "bedrooms": listing.bedrooms,
        "bathrooms": listing.bathrooms,
        "square_feet": listing.square_feet,
        "lot_size": listing.lot_size,
        "year_built": listing.year_built,
        "description": rng.choice(demo.DESCRIPTIONS[listing.property_type]).format(town=listing.town),
        "features": sorted(rng.sample(features, min(len(features), rng.randint(2, 4)))),
        "created_by": listing.agent_id,
        "created_at": listing.created_at,
        "updated_at": listing.created_at,
    }


def make_valuations(listings: list[Listing], now: datetime) -> Rows:
    """Two or three of each, over the last years and rising to about the price."""
    rows = []
    for listing in listings:
        rng = random_for("valuations", listing.address)
        for years, part in ((2, 0.88), (1, 0.94), (0, 1.0))[rng.randrange(2) :]:
            at = listing.created_at - timedelta(days=365 * years + rng.randrange(1, 20))
            rows.append(
                {
                    "property_id": listing.id,
                    "value": round(listing.price * part * rng.uniform(0.97, 1.03), -3),
                    "valuation_date": at.date(),
                    "source": rng.choice(demo.VALUATION_SOURCES),
                    "created_by": listing.agent_id,
                    "created_at": listing.created_at,
                }
            )
    return rows


def make_notes(listings: list[Listing], now: datetime) -> Rows:
    """None to two of each."""
    rows = []
    for listing in listings:
        rng = random_for("notes", listing.address)
        contents = rng.sample(demo.PROPERTY_NOTES, rng.randrange(3))
        rows += [_said_of(listing, rng, now) | {"content": content} for content in contents]
    return sorted(rows, key=time_of)


def make_activities(listings: list[Listing], now: datetime) -> Rows:
    """One to four of each."""
    rows = []
    for listing in listings:
        rng = random_for("activities", listing.address)
        rows += [
            _said_of(listing, rng, now) | {"activity_type": kind, "description": description}
            for kind, description in rng.sample(demo.PROPERTY_ACTIVITIES, rng.randint(1, 4))
        ]
    return sorted(rows, key=time_of)


def _said_of(listing: Listing, rng: Random, now: datetime) -> dict[str, Any]:
    return {
        "property_id": listing.id,
        "created_by": listing.agent_id,
        "created_at": between(rng, listing.created_at, listing.closed_at or now),
    }


def time_of(row: dict[str, Any]) -> datetime:
    """When the row was made: lists go by the id, so rows are inserted in this order."""
    at: datetime = row["created_at"]
    return at


def before(now: datetime, rng: Random, earliest: int, latest: int) -> datetime:
    """A time so many days ago, in whole seconds."""
    return now - timedelta(seconds=rng.randrange(earliest * 86400, latest * 86400))


def between(rng: Random, first: datetime, last: datetime) -> datetime:
    """A time between the two."""
    return first + (last - first) * rng.random()
