"""The demo data: what a newcomer finds, that it is whole, and that loading it twice, or half, changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from api import Api, Client, served_api
from conftest import TestDatabase

from reos import demo
from reos.errors import StorageServiceError
from reos.integrations.storage import LocalStorage
from reos.integrations.tracking import open_message_id
from reos.schemas.campaign_templates import CampaignTemplateCreate
from reos.schemas.deals import DealStage
from reos.seed import campaigns, market, pipeline, seed

pytestmark = pytest.mark.integration

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def seeded(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """A served database with the demo data."""
    async with served_api(database, tmp_path_factory.mktemp("data")) as api:
        assert await seed(api.settings)
        yield api


async def log_in(api: Api, email: str) -> Client:
    (password,) = (user[6] for user in demo.USERS if user[5] == email)
    answer = await api.anonymous.post("/auth/login", json={"email": email, "password": password}, status=200)
    return Client(api.http, {"Authorization": f"Bearer {answer['access_token']}"})


async def everything(client: Client, path: str) -> list[dict[str, Any]]:
    """All items of a list."""
    items: list[dict[str, Any]] = []
    while True:
        page = await client.get(path, params={"page": len(items) // 100 + 1, "page_size": 100})
        items += page["items"]
        if not page["has_more"]:
            return items


async def test_everybody_can_log_in_and_has_the_role(seeded: Api) -> None:
    for organization, role, first_name, _, _, email, _ in demo.USERS:
        me = await (await log_in(seeded, email)).get("/auth/me")
        assert me["first_name"] == first_name
        assert me["is_verified"]
        assert [found["name"] for found in me["roles"]] == [role]
        name, settings = next((row[1], row[3]) for row in demo.ORGANIZATIONS if row[0] == organization)
        assert me["organization"]["name"] == name
        assert me["organization"]["settings"] == settings


async def test_the_passwords_are_those_of_the_documents(seeded: Api) -> None:
    known = {user[5]: user[6] for user in demo.USERS}
    assert known["admin@acme-realestate.com"] == "Admin123!"
    assert known["manager@acme-realestate.com"] == "Manager123!"
    assert known["mike@acme-realestate.com"] == "Agent123!"
    assert all(known[email] == password for _, email, password in demo.LOGINS)


async def test_there_is_a_market(seeded: Api) -> None:
    found, leads = [], []
    for email in ("admin@acme-realestate.com", "admin@premium-properties.com"):
        client = await log_in(seeded, email)
        found += await everything(client, "/properties")
        assert (await client.get("/deals"))["total"] >= 10
        leads += await everything(client, "/leads")
    assert len(found) >= 60
    assert len(leads) >= 120
    assert len({(listing["city"], listing["state"]) for listing in found}) >= 15
    assert all(listing["latitude"] and listing["longitude"] for listing in found)
    assert {listing["status"] for listing in found} == {"available", "under_contract", "sold", "rented", "off_market"}


async def test_a_listing_has_pictures_valuations_and_a_past(seeded: Api) -> None:
    client = await log_in(seeded, "mike@acme-realestate.com")
    (listing,) = (await client.get("/properties", params={"search": "4616 Barton Hills"}))["items"]
    path = f"/properties/{listing['id']}"
    images = await client.get(f"{path}/images")
    assert [image["title"] for image in images] == ["From the street", "Floor plan"]
    for image in images:
        for address in (image["url"], image["thumbnail_url"]):
            answer = await seeded.http.get(address.replace(seeded.settings.base_url, seeded.url))
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.content.startswith(b"\xff\xd8\xff")
    valuations = await client.get(f"{path}/valuations")
    days = [valuation["valuation_date"] for valuation in valuations]
    assert len(days) >= 2
    assert days == sorted(days, reverse=True)
    assert await client.get(f"{path}/activities")


async def test_deals_stand_in_every_stage_with_a_history_over_the_year(seeded: Api) -> None:
    client = await log_in(seeded, "manager@acme-realestate.com")
    deals = await everything(client, "/deals")
    assert {deal["stage"] for deal in deals} == set(get_args(DealStage))
    closed = {deal["closed_at"][:7] for deal in deals if deal["closed_at"]}
    assert len(closed) >= 8
    for deal in deals:
        history = await client.get(f"/deals/{deal['id']}/history", params={"page_size": 100})
        stages = [change["new_stage"] for change in reversed(history)]
        assert stages[-1] == deal["stage"]
        assert [change["old_stage"] for change in reversed(history)] == [None, *stages[:-1]]
        assert history[-1]["changed_at"] == deal["created_at"]
        if deal["stage"] == "closed_won":
            transactions = await client.get(f"/deals/{deal['id']}/transactions")
            assert "commission" in {entry["transaction_type"] for entry in transactions["items"]}


async def test_a_status_is_what_a_deal_made_it(seeded: Api) -> None:
    """As if the deals had gone their way through the API: reopening one frees its property."""
    rows = await seeded.fetch(
        "select p.status, p.status_deal_id, d.stage, d.deal_type, d.property_id = p.id as is_its_own from properties p"
        " left join deals d on d.organization_id = p.organization_id and d.id = p.status_deal_id"
    )
    for row in rows:
        if row["status"] in ("available", "off_market"):
            assert row["status_deal_id"] is None
        else:
            assert row["is_its_own"]
            is_renting = row["deal_type"] in ("lease", "rental")
            given = ("rented" if is_renting else "sold") if row["stage"] == "closed_won" else "under_contract"
            assert row["status"] == given
    client = await log_in(seeded, "admin@premium-properties.com")
    (deal, *_) = (await client.get("/deals", params={"stage": "closed_won"}))["items"]
    await client.patch(f"/deals/{deal['id']}", json={"stage": "negotiation"})
    assert (await client.get(f"/properties/{deal['property_id']}"))["status"] == "available"
    await client.patch(f"/deals/{deal['id']}", json={"stage": "closed_won"})


async def test_leads_were_contacted_and_some_converted(seeded: Api) -> None:
    client = await log_in(seeded, "admin@acme-realestate.com")
    leads = {lead["id"]: lead for lead in await everything(client, "/leads")}
    named = [deal["lead_id"] for deal in await everything(client, "/deals") if deal["lead_id"]]
    assert len(named) > 20
    assert all(leads[lead_id]["status"] == "converted" for lead_id in named)
    contacted = next(lead for lead in leads.values() if lead["last_contacted_at"] and lead["status"] == "contacted")
    assert await client.get(f"/leads/{contacted['id']}/activities")


async def test_every_lead_has_a_past(seeded: Api) -> None:
    client = await log_in(seeded, "mike@acme-realestate.com")
    for lead in await everything(client, "/leads"):
        first, *later = reversed(await client.get(f"/leads/{lead['id']}/activities"))
        assert (first["activity_type"], first["created_at"]) == ("note", lead["created_at"])
        assert (lead["status"] == "new") != bool(later)
        done = [entry["completed_at"] for entry in later if entry["activity_type"] != "note" and entry["completed_at"]]
        assert lead["last_contacted_at"] == max(done, default=None)


async def test_a_campaign_was_sent_and_its_numbers_are_those_of_its_recipients(seeded: Api) -> None:
    client = await log_in(seeded, "manager@acme-realestate.com")
    draft, sent = sorted(await everything(client, "/campaigns"), key=lambda campaign: campaign["total_recipients"])
    assert (draft["status"], draft["total_recipients"], draft["started_at"]) == ("draft", 0, None)
    assert sent["status"] == "completed"
    recipients = await everything(client, f"/campaigns/{sent['id']}/recipients")
    statuses = Counter(entry["status"] for entry in recipients)
    assert set(statuses) == {"sent", "failed", "bounced", "suppressed"}
    assert {name: sent[f"{name}_count"] for name in ("failed", "bounced", "suppressed", "unknown")} == {
        name: statuses[name] for name in ("failed", "bounced", "suppressed", "unknown")
    }
    assert sent["total_recipients"] == len(recipients)
    assert sent["sent_count"] == statuses["sent"] + statuses["bounced"]
    assert sent["delivered_count"] == statuses["sent"]
    for what in ("opened", "clicked", "unsubscribed"):
        assert sent[f"{what}_count"] == sum(entry[f"{what}_at"] is not None for entry in recipients) > 0
    for entry in recipients:
        steps = ("created_at", "sent_at", "bounced_at", "opened_at", "clicked_at")
        times = [entry[name] for name in steps if entry[name]]
        assert times == sorted(times), entry
        last = max(*times, entry["unsubscribed_at"] or "")
        assert entry["updated_at"] > last if entry["status"] == "failed" else entry["updated_at"] == last
        assert (entry["sent_at"] is not None) == (entry["status"] in ("sent", "bounced"))
        assert not entry["sent_at"] or sent["started_at"] < entry["sent_at"] < sent["completed_at"]
        assert (entry["error_message"] is None) == (entry["status"] == "sent")
    assert sent["updated_at"] == max(entry["updated_at"] for entry in recipients)
    leads = [lead["id"] for lead in await everything(client, "/leads") if lead["created_at"] < sent["started_at"]]
    assert sorted(entry["lead_id"] for entry in recipients) == sorted(leads)


async def test_who_bounced_unsubscribed_or_asked_is_not_written_to_again(seeded: Api) -> None:
    client = await log_in(seeded, "manager@acme-realestate.com")
    suppressed = {entry["email"]: entry for entry in await everything(client, "/suppressions")}
    sent = next(item for item in await everything(client, "/campaigns") if item["status"] == "completed")
    recipients = await everything(client, f"/campaigns/{sent['id']}/recipients")
    for entry in recipients:
        known = suppressed.get(entry["address"])
        if entry["bounced_at"] or entry["unsubscribed_at"]:
            reason = "bounced" if entry["bounced_at"] else "unsubscribed"
            at = entry["bounced_at"] or entry["unsubscribed_at"]
            assert known and (known["reason"], known["created_at"], known["created_by"]) == (reason, at, None)
        else:
            before = bool(known and known["created_at"] < sent["started_at"])
            assert (entry["status"] == "suppressed") == before
    noted = [entry["reason"] for entry in suppressed.values() if entry["created_by"]]
    assert sorted(noted) == sorted(row[1] for row in demo.SUPPRESSIONS if row[0] == "acme")


async def test_the_draft_is_ready_and_passes_over_who_is_suppressed(seeded: Api) -> None:
    client = await log_in(seeded, "manager@acme-realestate.com")
    draft = next(item for item in await everything(client, "/campaigns") if item["status"] == "draft")
    lead = (await client.get("/leads"))["items"][0]
    mail = await client.post(f"/campaigns/{draft['id']}/preview", status=200, json={"lead_id": lead["id"]})
    assert f"Hello {lead['first_name']}," in mail["text"]
    assert "{{" not in mail["html"]
    started = await client.post(f"/campaigns/{draft['id']}/send", status=200, json={})
    suppressions = (await client.get("/suppressions"))["total"]
    assert started["suppressed_count"] == suppressions > 3
    await client.post(f"/campaigns/{draft['id']}/cancel", status=200)


async def test_mails_of_the_campaign_can_be_traced_to_their_recipients(seeded: Api) -> None:
    rows = await seeded.fetch("select organization_id, id, message_id, attempts from campaign_recipients")
    assert {row["attempts"] for row in rows} == {0, 1}
    for row in rows:
        assert (row["message_id"] is not None) == bool(row["attempts"])
        if row["message_id"]:
            found = open_message_id(seeded.context.signer, row["message_id"])
            assert found == (row["organization_id"], row["id"])


async def test_templates_are_such_as_the_api_takes(seeded: Api) -> None:
    client = await log_in(seeded, "mike@acme-realestate.com")
    shown = await client.get("/campaigns/templates")
    assert {item["name"] for item in shown} == {row[1] for row in demo.TEMPLATES if row[0] == "acme"}
    assert {item["campaign_type"] for item in shown} >= {"email", "sms"}
    for item in shown:
        fields = {name: item[name] for name in CampaignTemplateCreate.model_fields}
        assert CampaignTemplateCreate.model_validate(fields).model_dump() == fields


async def test_what_analytics_show_is_believable(seeded: Api) -> None:
    client = await log_in(seeded, "manager@acme-realestate.com")
    board = await client.get("/analytics/dashboard")
    for name in ("properties", "leads", "deals"):
        assert board[f"total_{name}"] == (await client.get(f"/{name}"))["total"]
    assert board["recent_activity_count"] >= 10
    assert all(board["deals_by_stage"].values())
    assert all(board["properties_by_status"].values())
    assert all(board["leads_by_status"].values())
    leads = await client.get("/leads/stats")
    assert 10 < leads["conversion_rate"] < 40
    assert 30 < leads["avg_score"] < 70
    deals = await client.get("/deals/stats")
    assert 40 < deals["win_rate"] < 80
    campaigns = await client.get("/campaigns/stats")
    assert 95 < campaigns["delivery_rate"] < 99.9
    assert 30 < campaigns["open_rate"] < 60
    assert 20 < campaigns["click_rate"] < 60
    revenue = await client.get("/analytics/revenue")
    months = {item["month"]: float(item["revenue"]) for item in revenue["revenue_by_month"]}
    today = datetime.now(ZoneInfo("America/Chicago"))
    year = [f"{today.year - (n >= today.month):04}-{(today.month - n - 1) % 12 + 1:02}" for n in range(1, 12)]
    assert sum(months.get(month, 0) > 0 for month in year) >= 10
    assert float(revenue["net_revenue"]) > 0


async def test_portfolios_hold_the_listings_of_the_table(seeded: Api) -> None:
    client = await log_in(seeded, "admin@acme-realestate.com")
    counts = {item["name"]: item["property_count"] for item in await everything(client, "/portfolios")}
    assert counts == {name: len(addresses) for owner, name, _, addresses in demo.PORTFOLIOS if owner == "acme"}


async def test_nothing_lies_in_the_future_but_what_is_planned(seeded: Api) -> None:
    for table in ("properties", "leads", "deals", "transactions", "lead_activities", "property_notes"):
        assert await seeded.value(f"select count(*) > 0 and max(created_at) <= now() from {table}"), table


async def test_a_second_time_changes_nothing(seeded: Api) -> None:
    def count() -> Any:
        return seeded.fetch("select (select count(*) from properties), (select count(*) from users)")

    before, files = await count(), len(list((seeded.settings.data_dir / "files").rglob("*")))
    assert not await seed(seeded.settings)
    assert await count() == before
    assert len(list((seeded.settings.data_dir / "files").rglob("*"))) == files


@pytest.mark.slow
async def test_of_two_seeders_one_loads(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        done = await asyncio.gather(*(seed(api.settings) for _ in range(3)))
        assert sorted(done) == [False, False, True]
        assert await api.value("select count(*) from organizations") == len(demo.ORGANIZATIONS)


async def test_a_seeder_that_fails_leaves_nothing(
    fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(deals: list[pipeline.Deal]) -> market.Rows:
        if deals[0].listing.town == "Denver":  # The second organisation's.
            raise RuntimeError("told to fail")
        return []

    monkeypatch.setattr(pipeline, "transaction_rows", fail)
    async with served_api(fresh_database, tmp_path) as api:
        with pytest.raises(RuntimeError, match="told to fail"):
            await seed(api.settings)
        assert await api.value("select count(*) from organizations") == 0
        assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
        monkeypatch.undo()
        assert await seed(api.settings)


async def test_a_picture_that_cannot_be_stored_leaves_none_of_the_others(
    fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, close = LocalStorage.put, LocalStorage.close
    keys: list[str] = []
    closed: list[LocalStorage] = []

    async def slow(storage: LocalStorage, key: str, data: bytes, content_type: str) -> int:
        keys.append(key)
        if len(keys) == 1:
            raise StorageServiceError
        await asyncio.sleep(0.2)
        return await put(storage, key, data, content_type)

    async def note(storage: LocalStorage) -> None:
        closed.append(storage)
        await close(storage)

    monkeypatch.setattr(LocalStorage, "put", slow)
    monkeypatch.setattr(LocalStorage, "close", note)
    async with served_api(fresh_database, tmp_path) as api:
        with pytest.raises(StorageServiceError):
            await seed(api.settings)
        assert len(closed) == 1
        await asyncio.sleep(0.5)
        assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


def test_it_is_the_same_at_each_run() -> None:
    def made() -> tuple[Any, ...]:
        listings = market.make_listings("acme", NOW)
        deals = pipeline.make_deals("acme", listings, NOW)
        leads = pipeline.make_leads("acme", deals, [1, 2], NOW)
        contacts = pipeline.make_contacts(leads, NOW)
        noted = campaigns.make_suppressions("acme", leads, 1, NOW)
        templates = {row[1]: number for number, row in enumerate(demo.TEMPLATES)}
        return (
            noted,
            campaigns.make_campaigns("acme", leads, noted, templates, 1, NOW),
            [market.property_row(listing) for listing in listings],
            [pipeline.deal_row(deal, NOW) for deal in deals],
            [pipeline.lead_row(lead) for lead in leads],
            pipeline.contact_rows(contacts),
            pipeline.stage_rows(deals),
            pipeline.transaction_rows(deals),
        )

    assert made() == made()


def test_it_is_the_same_whenever_it_runs_but_for_the_dates() -> None:
    def stages(now: datetime) -> list[tuple[str, str, int]]:
        listings = market.make_listings("premium", now)
        return [
            (deal.listing.address, deal.stage, deal.value) for deal in pipeline.make_deals("premium", listings, now)
        ]

    assert stages(NOW) == stages(NOW + timedelta(days=500))


def test_the_tables_fit_together() -> None:
    addresses = [row[0] for rows in demo.LISTINGS.values() for row in rows]
    assert len(set(addresses)) == len(addresses) >= 60
    assert {row[1] for rows in demo.LISTINGS.values() for row in rows} == set(demo.TOWNS)
    assert {row[2] for rows in demo.LISTINGS.values() for row in rows} <= set(demo.DESCRIPTIONS) & set(demo.FEATURES)
    for owner, name, _, wanted in demo.PORTFOLIOS:
        assert set(wanted) <= {row[0] for row in demo.LISTINGS[owner]}, name
    assert Counter(user[0] for user in demo.USERS) == {"acme": 5, "premium": 1}
    assert sum(demo.LEADS.values()) >= 120
    for row in demo.CAMPAIGNS:
        assert (row[0], row[3]) in {template[:2] for template in demo.TEMPLATES}
    for organization in demo.LISTINGS:
        assert next(user[1] for user in demo.USERS if user[0] == organization) == "Admin"
