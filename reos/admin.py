"""Adding an Admin from the command line: the first of an installation, or one where an organisation lost its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pydantic import ValidationError

from reos.auth.passwords import hash_password, password_problems
from reos.db import Database, Record, plain_transaction, prepare_connection, tenant_transaction
from reos.errors import InvalidInputError, ResourceAlreadyExistsError
from reos.handlers.auth import slug_of
from reos.queries import admin as queries
from reos.queries import auth, roles, users
from reos.schemas.auth import Registration
from reos.settings import Settings


async def create_admin(settings: Settings, email: str, password: str, organization: str) -> str:
    """Add a verified Admin to the organisation with this name or slug, which is made when there is none.

    The sentence that tells what was done. Raises InvalidInputError, ResourceAlreadyExistsError, DatabaseError.
    """
    person = _person(settings, email, password, organization)
    password_hash = await hash_password(password)
    found = await _find(settings, organization)
    try:
        async with _database(settings) as database:
            if found is None:
                await _found(database, person, password_hash)
                return f"{person.email} is the Admin of the new organisation {person.organization_name}."
            await _join(database, found, person, password_hash)
            return f"{person.email} is an Admin of {found['name']}."
    except asyncpg.UniqueViolationError as error:
        raise ResourceAlreadyExistsError(f"A user with the address {person.email} exists already.") from error


def _person(settings: Settings, email: str, password: str, organization: str) -> Registration:
    """What was given, as a registration, which it must be fit for. Raises InvalidInputError."""
    problems = password_problems(password, settings)
    if problems:
        raise InvalidInputError(f"The password {' and '.join(message for _, message in problems)}.")
    name = email.partition("@")[0][:100].capitalize()
    given = {"email": email, "password": password, "first_name": name, "last_name": "Admin"}
    try:
        return Registration.model_validate(given | {"organization_name": organization})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = {"organization_name": "The organisation"}.get(str(first["loc"][0]), "The address")
        raise InvalidInputError(f"{field} is not acceptable: {first['msg']}.") from error


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    database = await Database.connect(settings)
    try:
        yield database
    finally:
        await database.close()


async def _find(settings: Settings, organization: str) -> Record | None:
    """The organisation that is meant. Raises InvalidInputError when it may be one of several."""
    conn = await asyncpg.connect(settings.db_owner_dsn or settings.db_dsn)
    try:
        await prepare_connection(conn, "reos_owner")
        found = await queries.find_organizations(conn, organization.strip())
    finally:
        await conn.close()
    exact = [row for row in found if row["slug"] == organization.strip()] or found
    if len(exact) > 1:
        slugs = ", ".join(row["slug"] for row in exact)
        raise InvalidInputError(f"Several organisations are called {organization}; give the slug: {slugs}.")
    return exact[0] if exact else None


async def _found(database: Database, person: Registration, password_hash: str) -> None:
    """Make the organisation, with its Admin."""
    assert person.organization_name is not None
    async with plain_transaction(database) as conn:
        made = await auth.register(
            conn,
            organization_name=person.organization_name,
            slug=slug_of(person.organization_name),
            email=person.email,
            email_key=users.email_key(person.email),
            password_hash=password_hash,
            first_name=person.first_name,
            last_name=person.last_name,
            phone=None,
        )
        await auth.verify_user(conn, made["user_id"])


async def _join(database: Database, organization: Record, person: Registration, password_hash: str) -> None:
    """Add the Admin to an organisation that is there."""
    async with tenant_transaction(database, organization["id"]) as conn:
        await users.create(
            conn,
            email=person.email,
            first_name=person.first_name,
            last_name=person.last_name,
            phone=None,
            password_hash=password_hash,
            role_ids=[await roles.lock_admin_role(conn)],
        )
