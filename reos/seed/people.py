"""Organisations and those who log in to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reos.db import Connection
from reos.queries import auth
from reos.queries import demo as queries
from reos.queries.users import email_key


@dataclass(frozen=True, slots=True)
class Person:
    """A user to be, with a system role."""

    role: str
    first_name: str
    last_name: str
    phone: str | None
    email: str
    password_hash: str


async def found(
    conn: Connection, name: str, slug: str, settings: dict[str, Any], people: list[Person]
) -> tuple[int, dict[str, list[int]]]:
    """Make the organisation, which becomes the transaction's tenant, and its users: its id, and theirs by role.

    The first of the people is the Admin who founds it.
    """
    founder, *others = people
    admin = await auth.register(
        conn,
        organization_name=name,
        slug=slug,
        email=founder.email,
        email_key=email_key(founder.email),
        password_hash=founder.password_hash,
        first_name=founder.first_name,
        last_name=founder.last_name,
        phone=founder.phone,
    )
    await queries.set_settings(conn, settings)
    await auth.verify_user(conn, admin["user_id"])
    ids = await queries.create_users(
        conn,
        [
            {
                "email": person.email,
                "first_name": person.first_name,
                "last_name": person.last_name,
                "phone": person.phone,
            }
            for person in others
        ],
    )
    await queries.create_logins(
        conn,
        [
            {"user_id": ids[person.email], "email_key": email_key(person.email), "password_hash": person.password_hash}
            for person in others
        ],
    )
    await queries.grant_roles(conn, [{"user_id": ids[person.email], "role": person.role} for person in others])
    users = {"Admin": [admin["user_id"]]}
    for person in others:
        users.setdefault(person.role, []).append(ids[person.email])
    return admin["organization_id"], users
