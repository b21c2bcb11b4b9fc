"""An organisation of so many rows, made inside the database. All but `tidy` are of the tenant, which has nothing yet.

Each of `create_*` takes a `seed`, the same for the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reos.db import Connection, execute
from reos.sql import load

SQL = load("scale")

Rows = list[dict[str, Any]]


async def create_properties(
    conn: Connection,
    seed: int,
    count: int,
    days: float,
    *,
    towns: Rows,
    kinds: Rows,
    streets: Sequence[str],
    agents: Sequence[int],
) -> None:
    """Properties of the last `days`. Of `towns` and `kinds` each is as likely as the others."""
    await execute(conn, SQL.create_properties, seed, count, days, towns, kinds, streets, agents)


async def create_leads(
    conn: Connection,
    seed: int,
    count: int,
    days: float,
    converted: float,
    *,
    first_names: Sequence[str],
    last_names: Sequence[str],
    sources: Sequence[str],
    statuses: Sequence[str],
    agents: Sequence[int],
) -> None:
    """Leads of the last `days`; `converted` is the part of the deals that come from one."""
    await execute(
        conn, SQL.create_leads, seed, count, days, converted, first_names, last_names, sources, statuses, agents
    )


async def create_deals(
    conn: Connection,
    seed: int,
    *,
    stages: Sequence[str],
    types: Sequence[str],
    path: Sequence[str],
    probabilities: dict[str, int],
) -> None:
    """Deals about two of five properties, with the history of their stages; `path` is the way to a deal that is won."""
    await execute(conn, SQL.create_deals, seed, stages, types, path, probabilities)
    await execute(conn, SQL.create_stage_changes, seed, path)
    await execute(conn, SQL.create_transactions)
    await execute(conn, SQL.claim_properties)


async def create_activities(
    conn: Connection, seed: int, *, beginnings: dict[str, str], contacts: Rows, showings: Rows
) -> None:
    """What was done about leads (`beginnings` by their source, then one of `contacts`) and about properties."""
    await execute(conn, SQL.create_lead_activities, seed, beginnings, contacts)
    await execute(conn, SQL.create_property_activities, seed, showings)


async def tidy(conn: Connection) -> None:
    """Leave the tables as after a while of service. As reos_owner."""
    await execute(conn, SQL.tidy)
