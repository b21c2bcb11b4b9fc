"""The morning report: in the organisation's morning, to those who want it and may read it, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from api import Api, Client
from event_streams import until
from job_queue import running_worker

from reos.db import plain_transaction, tenant_transaction
from reos.integrations.email import list_outbox, outbox_directory, read_outbox
from reos.queries import daily_reports, jobs

pytestmark = pytest.mark.integration


async def due_at(api: Api, moment: datetime, *clients: Client) -> set[int]:
    """Which of these users would get a report then."""
    async with plain_transaction(api.database) as conn:
        rows = await daily_reports.list_due(conn, moment, 10_000)
    return {row["user_id"] for row in rows} & {client.user_id for client in clients}


async def want(client: Client) -> Client:
    await client.put("/auth/me", json={"preferences": {"daily_report": True}})
    return client


async def zone(admin: Client, name: str) -> None:
    await admin.put("/organization", json={"settings": {"timezone": name}})


def utc(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 15, hour, minute, tzinfo=UTC)


async def test_it_comes_in_the_organisations_morning(api: Api) -> None:
    new_york, tokyo = await want(await api.register()), await want(await api.register())
    await zone(new_york, "America/New_York")
    await zone(tokyo, "Asia/Tokyo")
    for moment, expected in (
        (utc(11, 59), set()),
        (utc(12), {new_york.user_id}),
        (utc(16, 59), {new_york.user_id}),
        (utc(17), set()),
        (utc(21, 59), set()),
        (utc(22), {tokyo.user_id}),
    ):
        assert await due_at(api, moment, new_york, tokyo) == expected, moment


async def test_it_comes_at_seven_in_summer_too(api: Api) -> None:
    admin = await want(await api.register())
    await zone(admin, "CET")
    for moment, expected in (
        (datetime(2026, 7, 15, 4, 59, tzinfo=UTC), set()),
        (datetime(2026, 7, 15, 5, tzinfo=UTC), {admin.user_id}),
    ):
        assert await due_at(api, moment, admin) == expected, moment


async def test_a_zone_that_postgres_knows_no_more_keeps_nobody_elses(api: Api) -> None:
    lost, other = await want(await api.register()), await want(await api.register())
    settings = 'update organizations set settings = \'{"timezone": "Nowhere/Atlantis"}\' where id = $1'
    await api.value(settings, lost.organization_id)
    assert await due_at(api, utc(8), lost, other) == {lost.user_id, other.user_id}
    assert await due_at(api, utc(12), lost, other) == set()


async def test_only_who_wants_it_and_may_read_it_gets_it(api: Api) -> None:
    admin = await api.register()
    wants = await want(await api.add_user(admin, "Agent"))
    unasked = await api.add_user(admin, "Agent")
    may_not = await want(await api.add_user_with(admin, ["lead:read"]))
    gone = await want(await api.add_user(admin, "Agent"))
    await api.value("update users set is_active = false where id = $1", gone.user_id)
    everybody = (admin, wants, unasked, may_not, gone)
    assert await due_at(api, utc(8), *everybody) == {wants.user_id}


async def test_a_day_is_claimed_once(api: Api) -> None:
    admin = await want(await api.register())
    claims = []
    for _ in range(2):
        async with tenant_transaction(api.database, admin.organization_id) as conn:
            claims.append(await daily_reports.claim(conn, admin.user_id, utc(8).date()))
    assert claims == [True, False]
    assert await due_at(api, utc(8), admin) == set()
    assert await due_at(api, utc(8).replace(day=16), admin) == {admin.user_id}


async def queue_report(api: Api, client: Client) -> int | None:
    async with tenant_transaction(api.database, client.organization_id) as conn:
        ids = {"user_id": client.user_id, "day": datetime.now(UTC).date().toordinal() + 1}
        return await jobs.defer(conn, "send_daily_analytics_report", ids)


async def test_the_mail_tells_how_things_stand(api: Api) -> None:
    admin = await want(await api.register())
    await admin.post("/leads", json={"first_name": "A", "last_name": "B", "source": "other"})
    await queue_report(api, admin)
    address = (await admin.get("/auth/me"))["email"]
    found: list[Any] = []

    async def has_come() -> bool:
        found[:] = [mail for mail in list_outbox(outbox_directory(api.settings)) if mail.recipient == address]
        return bool(found)

    async with running_worker(api.settings):
        await until(has_come)
    mail = read_outbox(outbox_directory(api.settings), found[0].name)
    assert mail is not None
    assert "New leads:   1" in mail.text
    assert "Leads:       1" in mail.text
    assert "Deal value:  0.00" in mail.text


async def test_a_report_that_waited_goes_to_nobody_who_may_not_read_it_any_more(api: Api) -> None:
    admin = await api.register()
    changed_mind, lost_role = [await want(await api.add_user(admin, "Agent")) for _ in range(2)]
    addresses = {(await client.get("/auth/me"))["email"] for client in (changed_mind, lost_role)}
    queued = [await queue_report(api, client) for client in (changed_mind, lost_role)]
    await changed_mind.put("/auth/me", json={"preferences": {"daily_report": False}})
    await admin.put(f"/users/{lost_role.user_id}", json={"role_ids": []})

    async def are_done() -> bool:
        query = "select count(*) from procrastinate.procrastinate_jobs where id = any($1) and status = 'succeeded'"
        return bool(await api.value(query, queued) == len(queued))

    async with running_worker(api.settings):
        await until(are_done)
    told = [mail for mail in list_outbox(outbox_directory(api.settings)) if mail.recipient in addresses]
    assert [mail.subject for mail in told if " on " in mail.subject] == []
