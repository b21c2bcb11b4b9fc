"""Loads the demo data of `reos.demo`: all of it in one transaction, or none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from reos import demo
from reos.auth.passwords import hash_password
from reos.auth.signing import Signer
from reos.db import Connection, Database, plain_transaction
from reos.errors import StorageServiceError
from reos.integrations.storage import Storage, make_storage
from reos.integrations.tracking import Addresses
from reos.queries import demo as queries
from reos.queries.users import email_key
from reos.seed import campaigns, market, pipeline
from reos.seed.market import Listing, Rows
from reos.seed.people import Person, found
from reos.seed.pipeline import Lead
from reos.settings import Settings


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture of a listing, and where it will lie."""

    title: str
    data: bytes
    thumbnail: bytes


async def seed(settings: Settings) -> bool:
    """Load the demo data; False when it is there already, which is so when anybody has one of its addresses.

    Raises DatabaseError, StorageServiceError.
    """
    storage = make_storage(settings)
    database = await Database.connect(settings)
    try:
        async with plain_transaction(database) as conn:
            if await _is_there(conn):
                return False
        return await _load(settings, database, storage)
    finally:
        await storage.close()
        await database.close()


async def _is_there(conn: Connection) -> bool:
    return bool(await queries.list_present(conn, [email_key(user[5]) for user in demo.USERS]))


async def _load(settings: Settings, database: Database, storage: Storage) -> bool:
    now = datetime.now(UTC)
    listings = {key: market.make_listings(key, now) for key, *_ in demo.ORGANIZATIONS}
    pictures, hashes = await asyncio.gather(
        asyncio.to_thread(_draw, [listing for some in listings.values() for listing in some]),
        asyncio.gather(*(hash_password(user[6]) for user in demo.USERS)),
    )
    people: dict[str, list[Person]] = {}
    for (key, role, first, last, phone, email, _), password_hash in zip(demo.USERS, hashes, strict=True):
        people.setdefault(key, []).append(Person(role, first, last, phone, email, password_hash))
    stored: list[str] = []
    try:
        async with plain_transaction(database) as conn:
            await queries.lock(conn)
            if await _is_there(conn):
                return False
            for key, name, slug, own_settings in demo.ORGANIZATIONS:
                offered = listings[key]
                organization_id, users = await found(conn, name, slug, own_settings, people[key])
                await _create_listings(conn, offered, users, now)
                rows = await _store(storage, organization_id, offered, pictures, stored)
                await queries.create_images(conn, rows)
                leads = await _create_pipeline(conn, key, offered, users, now)
                await _create_campaigns(conn, settings, organization_id, key, leads, users["Admin"][0], now)
    except BaseException:
        for key in stored:
            with suppress(StorageServiceError):  # What made us stop is the error to tell.
                await storage.delete(key)
        raise
    return True


async def _create_listings(
    conn: Connection, listings: list[Listing], users: dict[str, list[int]], now: datetime
) -> None:
    """The listings, each with an agent, and what was said about them."""
    agents = users.get("Agent", users["Admin"])
    for number, listing in enumerate(listings):
        listing.agent_id = agents[number % len(agents)]
    ids = await queries.create_properties(conn, [market.property_row(listing) for listing in listings])
    for listing in listings:
        listing.id = ids[listing.address]
    await queries.create_valuations(conn, market.make_valuations(listings, now))
    await queries.create_notes(conn, market.make_notes(listings, now))
    await queries.create_activities(conn, market.make_activities(listings, now))


async def _create_pipeline(
    conn: Connection, organization: str, listings: list[Listing], users: dict[str, list[int]], now: datetime
) -> list[Lead]:
    """Leads, deals and what belongs to them, and the portfolios; the leads, with their ids."""
    deals = pipeline.make_deals(organization, listings, now)
    leads = pipeline.make_leads(organization, deals, users.get("Agent", users["Admin"]), now)
    contacts = pipeline.make_contacts(leads, now)
    lead_ids = await queries.create_leads(conn, [pipeline.lead_row(lead) for lead in leads])
    for lead in leads:
        lead.id = lead_ids[lead.email]
    await queries.create_lead_activities(conn, pipeline.contact_rows(contacts))
    deal_ids = await queries.create_deals(conn, [pipeline.deal_row(deal, now) for deal in deals])
    for deal in deals:
        deal.id = deal_ids[deal.listing.id, deal.created_at]
    await queries.create_stage_changes(conn, pipeline.stage_rows(deals))
    await queries.create_transactions(conn, pipeline.transaction_rows(deals))
    for owner, name, description, addresses in demo.PORTFOLIOS:
        if owner == organization:
            await queries.create_portfolio(conn, name, description, users["Admin"][0], addresses)
    return leads


async def _create_campaigns(
    conn: Connection,
    settings: Settings,
    organization_id: int,
    organization: str,
    leads: list[Lead],
    admin_id: int,
    now: datetime,
) -> None:
    """Templates, campaigns, and the addresses that are not written to."""
    templates = await queries.create_campaign_templates(conn, campaigns.template_rows(organization, admin_id, now))
    noted = campaigns.make_suppressions(organization, leads, admin_id, now)
    made = campaigns.make_campaigns(organization, leads, noted, templates, admin_id, now)
    signer = Signer(settings.jwt_secret_key)
    for campaign in made:
        await queries.create_campaign(
            conn,
            campaign.row,
            campaign.recipients,
            lambda recipient_id: Addresses(settings, signer, organization_id, recipient_id).message_id,
        )
    rows = noted + campaigns.suppressions_of(made)
    await queries.create_suppressions(conn, sorted(rows, key=market.time_of))


def _draw(listings: list[Listing]) -> dict[str, list[Picture]]:
    """Pictures by address: the building, and a plan of what has bedrooms."""
    from reos.seed import drawings

    pictures: dict[str, list[Picture]] = {}
    for listing in listings:
        rng = market.random_for("picture", listing.address)
        pictures[listing.address] = [
            Picture("From the street", *drawings.to_jpeg(drawings.draw_outside(listing.property_type, rng)))
        ]
        if listing.bedrooms and listing.bedrooms <= 5:
            plan = drawings.to_jpeg(drawings.draw_plan(listing.bedrooms, rng))
            pictures[listing.address].append(Picture("Floor plan", *plan))
    return pictures


async def _store(
    storage: Storage,
    organization_id: int,
    listings: list[Listing],
    pictures: dict[str, list[Picture]],
    stored: list[str],
) -> Rows:
    """Put the pictures into the storage; the rows for them. Each key is noted in `stored` before it is used."""
    rows, files = [], []
    for listing in listings:
        for order, picture in enumerate(pictures[listing.address]):
            keys = [f"{organization_id}/images/{uuid4().hex}" for _ in range(2)]
            files += [(keys[0], picture.data), (keys[1], picture.thumbnail)]
            rows.append(
                {
                    "property_id": listing.id,
                    "title": picture.title,
                    "order": order,
                    "is_primary": order == 0,
                    "created_by": listing.agent_id,
                    "created_at": listing.created_at,
                    "storage_key": keys[0],
                    "size_bytes": len(picture.data),
                    "thumbnail_key": keys[1],
                    "thumbnail_bytes": len(picture.thumbnail),
                }
            )
    stored += [key for key, _ in files]
    puts = (storage.put(key, data, "image/jpeg") for key, data in files)
    # One that fails waits for the others: what is put after the files of a failure are removed would stay for ever.
    for outcome in await asyncio.gather(*puts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
    return rows
