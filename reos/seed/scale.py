"""Many organisations with many rows each, to measure with: made by a few statements for each, all of it or nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from reos import demo
from reos.auth.passwords import hash_password
from reos.db import Connection, prepare_connection
from reos.errors import DatabaseError
from reos.queries import demo as present
from reos.queries import scale as queries
from reos.queries.users import email_key
from reos.seed.market import random_for
from reos.seed.people import Person, found
from reos.seed.pipeline import CONTACTS, PATH, PROBABILITIES
from reos.settings import Settings

MAX_ORGANIZATIONS, MAX_ROWS = 1000, 1_000_000

_FORM = re.compile(r"([0-9]{1,7})[xX×]([0-9]{1,7})")
_NUMBER = re.compile(r"^[0-9]+ ")


@dataclass(frozen=True, slots=True)
class Scale:
    """So many organisations, each with so many properties, as many leads, and deals about two of five properties."""

    organizations: int
    rows: int

    def __str__(self) -> str:
        return f"{self.organizations}x{self.rows}"

    @property
    def admins(self) -> list[str]:
        """The addresses that their Admins log in with, by the password `demo.SCALE_PASSWORD`."""
        return [self.address("admin", number) for number in range(1, self.organizations + 1)]

    def address(self, who: str, number: int) -> str:
        return f"{who}@{self.slug(number)}.example.com"

    def slug(self, number: int) -> str:
        return f"scale-{self}-{number}"


def parse(text: str) -> Scale:
    """`20x5000` as what it means. Raises ValueError, with a sentence, for what is no such thing."""
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError(f"{text!r} is not of the form ORGANISATIONSxPROPERTIES, as 20x5000 is")
    scale = Scale(int(form.group(1)), int(form.group(2)))
    if not (1 <= scale.organizations <= MAX_ORGANIZATIONS and 1 <= scale.rows <= MAX_ROWS):
        raise ValueError(f"{text!r} is not between 1x1 and {MAX_ORGANIZATIONS}x{MAX_ROWS}")
    return scale


async def load(settings: Settings, scale: Scale) -> bool:
    """Make the organisations; False when there are any of them already. Raises DatabaseError."""
    conn = await _connect(settings.db_dsn, "reos_app")
    try:
        if await _is_there(conn, scale):
            return False
        people = await asyncio.gather(*(_people(scale, number) for number in range(1, scale.organizations + 1)))
        async with conn.transaction():
            await present.lock(conn)
            if await _is_there(conn, scale):
                return False
            for number in range(1, scale.organizations + 1):
                name = f"Scale {scale}, number {number}"
                zone = {"timezone": "America/Chicago", "currency": "USD"}
                _, users = await found(conn, name, scale.slug(number), zone, people[number - 1])
                await _fill(conn, scale, number, users["Agent"])
    finally:
        await conn.close()
    await _tidy(settings)
    return True


async def _is_there(conn: Connection, scale: Scale) -> bool:
    return bool(await present.list_present(conn, [email_key(address) for address in scale.admins]))


async def _connect(dsn: str, role: str) -> asyncpg.Connection:
    """A connection without a limit of time."""
    try:
        conn = await asyncpg.connect(dsn)
    except (OSError, asyncpg.PostgresError) as error:
        raise DatabaseError(f"Postgres cannot be reached: {error}") from error
    try:
        await prepare_connection(conn, role)
    except BaseException:
        await conn.close()
        raise
    return conn


async def _people(scale: Scale, number: int) -> list[Person]:
    """The Admin and the agents of an organisation."""
    rng = random_for("scale people", str(number))
    addresses = [scale.address("admin", number)]
    addresses += [scale.address(f"agent-{agent}", number) for agent in range(1, demo.SCALE_AGENTS + 1)]
    hashes = await asyncio.gather(*(hash_password(demo.SCALE_PASSWORD) for _ in addresses))
    return [
        Person(
            "Agent" if place else "Admin",
            rng.choice(demo.FIRST_NAMES),
            rng.choice(demo.LAST_NAMES),
            None,
            address,
            hashes[place],
        )
        for place, address in enumerate(addresses)
    ]


async def _fill(conn: Connection, scale: Scale, number: int, agents: list[int]) -> None:
    """The rows of the organisation that the transaction is of."""
    rng = random_for("scale", str(number))

    def seed() -> int:
        return rng.getrandbits(40) << 4  # Each statement counts on from it.

    await queries.create_properties(
        conn, seed(), scale.rows, demo.SCALE_DAYS, towns=_towns(), kinds=_kinds(), streets=_streets(), agents=agents
    )
    await queries.create_leads(
        conn,
        seed(),
        scale.rows,
        demo.SCALE_DAYS,
        demo.SCALE_CONVERTED,
        first_names=demo.FIRST_NAMES,
        last_names=demo.LAST_NAMES,
        sources=_as_often(demo.LEAD_SOURCES),
        statuses=_as_often({status: row[0] for status, row in demo.LEAD_STATUSES.items()}),
        agents=agents,
    )
    await queries.create_deals(
        conn,
        seed(),
        stages=_as_often(demo.SCALE_STAGES),
        types=_as_often(demo.SCALE_DEAL_TYPES),
        path=PATH,
        probabilities=PROBABILITIES,
    )
    await queries.create_activities(
        conn,
        seed(),
        beginnings=demo.LEAD_BEGINNINGS,
        contacts=[
            {"activity_type": kind, "subject": subject, "description": description, "outcome": outcome}
            for kind, subject, description, outcome in demo.LEAD_ACTIVITIES
            if kind in CONTACTS
        ],
        showings=[
            {"activity_type": kind, "description": description} for kind, description in demo.PROPERTY_ACTIVITIES
        ],
    )


def _as_often(weights: Mapping[str, int]) -> list[str]:
    """Each name as often as it weighs, so that a draw among equals is one by weight."""
    return [name for name, weight in weights.items() for _ in range(weight)]


def _towns() -> list[dict[str, Any]]:
    return [
        {"city": city, "state": state, "zip_code": zip_code, "latitude": latitude, "longitude": longitude}
        for city, (state, zip_code, latitude, longitude) in demo.TOWNS.items()
        for _ in range(demo.SCALE_TOWNS.get(city, 1))
    ]


def _kinds() -> list[dict[str, Any]]:
    names = ("lowest", "highest", "fewest", "most", "smallest", "largest")
    return [
        {
            "property_type": kind,
            **dict(zip(names, limits, strict=True)),
            "descriptions": demo.DESCRIPTIONS[kind],
            "features": demo.FEATURES[kind],
        }
        for kind, (weight, *limits) in demo.SCALE_TYPES.items()
        for _ in range(weight)
    ]


def _streets() -> list[str]:
    return sorted({_NUMBER.sub("", row[0]) for rows in demo.LISTINGS.values() for row in rows})


async def _tidy(settings: Settings) -> None:
    """Tell the planner of the new rows. Where the log-in may not, Postgres does it by itself after a minute."""
    with suppress(asyncpg.InsufficientPrivilegeError):
        conn = await _connect(settings.db_owner_dsn or settings.db_dsn, "reos_owner")
        try:
            await queries.tidy(conn)
        finally:
            await conn.close()
