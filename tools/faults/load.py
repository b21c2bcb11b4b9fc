"""What the users do all the time: one action after the other, chosen by chance."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

from raw_http import RawAnswer

from tools.faults.clients import PREFIX, Clients
from tools.faults.model import Family, Organization, User, Write

PASSWORD = "Correct Horse 7!"  # noqa: S105 - of users that live for minutes
ROLES = ("Admin", "Manager", "Agent")
STAGES = ("lead", "qualified", "proposal", "negotiation", "contract", "inspection", "financing", "closing")
TYPES = ("sell", "buy", "lease", "flip")
SOURCES = ("website", "referral", "phone", "event")
ALL_EVENTS = frozenset(
    f"{kind}.{what}"
    for kind, names in {
        "property": ("created", "updated", "deleted"),
        "lead": ("created", "updated", "assigned", "converted", "deleted"),
        "deal": ("created", "updated", "stage_changed", "deleted"),
        "campaign": ("started", "completed", "paused"),
    }.items()
    for what in names
)
SOME_EVENTS = frozenset({"deal.stage_changed", "lead.converted", "campaign.completed"})
RECIPIENTS = 60
REFRESH_SECONDS = 8.0  # within which a refresh whose answer was lost is sent again; the service forgives 10 s

Action = Callable[[Clients, User], Awaitable[object]]


# --- the beginning ---------------------------------------------------------------------------------------------


async def settle_in(clients: Clients, number: int, hook: str) -> Organization:
    """A new organisation with an Admin, a Manager and an Agent, webhooks, and rows to begin with."""
    organization = Organization(number)
    admin = User(organization, f"admin@o{number}.example.com", PASSWORD)
    body = {
        "email": admin.email,
        "password": PASSWORD,
        "first_name": "Ann",
        "last_name": f"Lee {number}",
        "organization_name": f"Organisation {number}",
    }
    registered = await clients.write(admin, "organization.register", "POST", "/auth/register", body)
    admin.token = registered.content["access_token"]
    admin.id = registered.content["user"]["id"]
    organization.id = registered.content["user"]["organization_id"]
    organization.users.append(admin)
    clients.model.organizations.append(organization)
    roles = await _sure(clients, admin, "/roles")
    ids = {role["name"]: role["id"] for role in roles.json()}
    for role in ROLES[1:]:
        organization.users.append(await _add_user(clients, admin, role, ids[role]))
    for user in organization.users:
        me = await _sure(clients, user, "/auth/me")
        user.permissions = frozenset(me.json()["permissions"])
    for name, types in (("all", ALL_EVENTS), ("some", SOME_EVENTS)):
        fields = {"url": f"{hook}/o{number}/{name}", "event_types": sorted(types)}
        made = await clients.write(admin, "webhook.create", "POST", "/webhooks", fields)
        clients.model.webhooks[made.content["id"]] = (organization, made.content["secret"], types)
    await asyncio.gather(*(create_lead(clients, clients.dice.choice(organization.users)) for _ in range(RECIPIENTS)))
    await asyncio.gather(*(create_property(clients, admin) for _ in range(10)))
    await _do_everything_once(clients, organization)
    return organization


async def _do_everything_once(clients: Clients, organization: Organization) -> None:
    """What the checks compare, once before the first fault: else a slow machine's run may not come to it by chance."""
    admin, _, agent = organization.users
    leads, properties = organization.rows["lead"], organization.rows["property"]
    for kind, row_id in (("property", properties[0]), ("lead", leads[0])):
        path = f"{PATHS[kind]}/{row_id}"
        await clients.write(admin, f"{kind}.update", "PUT", path, _change(clients, admin, kind))
        await _change_if_same(clients, [admin], kind, row_id)
    await clients.write(
        admin, "lead.assign", "POST", f"/leads/{leads[1]}/assign", {"user_id": agent.id}, marked=None
    )  # fmt: skip
    deal = _deal(clients, admin, properties[1])
    await clients.write(admin, "lead.convert", "POST", f"/leads/{leads[2]}/convert", deal, marked="notes")
    await _close(clients, admin, properties[2])
    body = {"name": "First houses", "property_ids": properties[:3]}
    await clients.write(admin, "portfolio.create", "POST", "/portfolios", body)
    await _send_campaign(clients, organization, admin)
    await _log_in(clients, agent)


async def _add_user(clients: Clients, admin: User, role: str, role_id: int) -> User:
    number = admin.organization.number
    user = User(admin.organization, f"{role.lower()}@o{number}.example.com", PASSWORD)
    body = {"email": user.email, "password": PASSWORD, "first_name": role, "last_name": "Poe", "role_ids": [role_id]}
    created = await clients.write(admin, "user.create", "POST", "/users", body)
    user.id = created.content["id"]
    logged_in = await clients.post_plain(user, "/auth/login", {"email": user.email, "password": PASSWORD})
    assert logged_in is not None
    user.token = logged_in.json()["access_token"]
    return user


async def _sure(clients: Clients, user: User, path: str) -> RawAnswer:
    answer = await clients.read(user, path)
    assert answer is not None
    assert answer.status == 200, answer
    return answer


async def work(clients: Clients, user: User, pause: float) -> None:
    """One client: an action, a pause, another action."""
    actions, weights = zip(*ACTIONS.items(), strict=True)
    while not clients.is_over:
        (action,) = clients.dice.choices(actions, weights)
        await action(clients, user)
        await clients.rest(pause)


def _pick(clients: Clients, user: User, kind: str) -> int | None:
    """A row: one of the newest, where clients meet, or any."""
    known = user.organization.rows[kind]
    if not known:
        return None
    return clients.dice.choice(known[-5:] if clients.dice.random() < 0.5 else known)


# --- properties and leads --------------------------------------------------------------------------------------


def _at_once(clients: Clients) -> int:
    """How often a write is sent at the same time."""
    return clients.dice.choice((1, 1, 1, 1, 1, 1, 2, 5))


async def create_property(clients: Clients, user: User) -> Write:
    dice = clients.dice
    body = {
        "address": f"{dice.randrange(1, 999)} Oak Street",
        "city": dice.choice(("Austin", "Waco", "Dallas")),
        "state": "TX",
        "zip_code": "78701",
        "property_type": "condo",
        "price": f"{dice.randrange(100_000, 900_000)}.00",
    }
    return await clients.write(user, "property.create", "POST", "/properties", body, times=_at_once(clients))


async def create_lead(clients: Clients, user: User) -> Write:
    dice = clients.dice
    number = len(clients.model.writes) + 1
    body: dict[str, Any] = {"first_name": "Grace", "last_name": f"Hopper {number}", "source": dice.choice(SOURCES)}
    if dice.random() < 0.9:
        # Now and then two leads share an address; only one of them gets a campaign's mail.
        shared = dice.random() < 0.05
        body["email"] = f"lead{number // 20 if shared else number}@o{user.organization.number}.example.com"
    if dice.random() < 0.2:
        body["assigned_to"] = dice.choice(user.organization.users).id
    return await clients.write(user, "lead.create", "POST", "/leads", body, times=_at_once(clients))


def _change(clients: Clients, user: User, kind: str) -> dict[str, Any]:
    dice = clients.dice
    if kind == "property":
        return {"price": f"{dice.randrange(100_000, 900_000)}.00", "bedrooms": dice.randrange(1, 6)}
    if kind == "lead":
        change: dict[str, Any] = {
            "score": dice.randrange(101),
            "status": dice.choice(("new", "contacted", "qualified")),
        }
        return change | ({"assigned_to": dice.choice(user.organization.users).id} if dice.random() < 0.2 else {})
    if kind == "deal":
        return {"probability": dice.randrange(101), "value": f"{dice.randrange(100_000, 900_000)}.00"}
    return {}


PATHS = {"property": "/properties", "lead": "/leads", "deal": "/deals", "portfolio": "/portfolios"}
MARKS = {"property": "description", "lead": "notes", "deal": "notes", "portfolio": "description"}


async def change_something(clients: Clients, user: User) -> None:
    """PUT or PATCH without a condition."""
    kind = clients.dice.choice(tuple(PATHS))
    row_id = _pick(clients, user, kind)
    if row_id is not None:
        method = clients.dice.choice(("PUT", "PATCH"))
        body = _change(clients, user, kind)
        await clients.write(user, f"{kind}.update", method, f"{PATHS[kind]}/{row_id}", body, times=_at_once(clients))


async def change_what_was_read(clients: Clients, user: User) -> None:
    """Read a row, then change it if nobody else has: one or several users at once, with the same tag."""
    dice = clients.dice
    kind = dice.choice(tuple(PATHS))
    row_id = _pick(clients, user, kind)
    if row_id is not None:
        users = dice.sample(user.organization.users, dice.choice((1, 2, 3)))
        await _change_if_same(clients, users, kind, row_id)


async def _change_if_same(clients: Clients, users: list[User], kind: str, row_id: int) -> None:
    found = await clients.get_row(users[0], kind, row_id, PATHS[kind])
    if found is None:
        return
    tag, content = found
    path = f"{PATHS[kind]}/{row_id}"
    await asyncio.gather(
        *(
            clients.write(
                other, f"{kind}.update", "PATCH", path, _change(clients, other, kind), if_match=tag,
                seen=content[MARKS[kind]],
            )
            for other in users
        )
    )  # fmt: skip


async def delete_something(clients: Clients, user: User) -> None:
    admin = user.organization.users[0]
    kind = clients.dice.choice(("property", "lead", "deal", "portfolio"))
    row_id = _pick(clients, user, kind)
    if row_id is None or clients.dice.random() < 0.5:
        return
    await clients.write(admin, f"{kind}.delete", "DELETE", f"{PATHS[kind]}/{row_id}", times=_at_once(clients))
    if clients.dice.random() < 0.3:
        return
    await clients.rest(0.2)
    await clients.write(admin, f"{kind}.restore", "POST", f"{PATHS[kind]}/{row_id}/restore")


async def restore_something(clients: Clients, user: User) -> None:
    deleted = sorted(user.organization.deleted)
    if deleted:
        kind, row_id = clients.dice.choice(deleted)
        if kind in PATHS:
            await clients.write(user, f"{kind}.restore", "POST", f"{PATHS[kind]}/{row_id}/restore")


async def assign_lead(clients: Clients, user: User) -> None:
    lead_id = _pick(clients, user, "lead")
    assigner = clients.dice.choice(user.organization.users[:2])
    if lead_id is not None:
        body = {"user_id": clients.dice.choice(user.organization.users).id}
        await clients.write(assigner, "lead.assign", "POST", f"/leads/{lead_id}/assign", body, marked=None)


async def note_lead(clients: Clients, user: User) -> None:
    lead_id = _pick(clients, user, "lead")
    if lead_id is None:
        return
    if clients.dice.random() < 0.5:
        body = {"content": "called back"}
        await clients.write(user, "lead_note.create", "POST", f"/leads/{lead_id}/notes", body)
    else:
        body = {"activity_type": clients.dice.choice(("call", "note")), "description": "spoke"}
        await clients.write(user, "lead_activity.create", "POST", f"/leads/{lead_id}/activities", body)


# --- deals -----------------------------------------------------------------------------------------------------


def _deal(clients: Clients, user: User, property_id: int) -> dict[str, Any]:
    dice = clients.dice
    body: dict[str, Any] = {
        "property_id": property_id,
        "deal_type": dice.choice(TYPES),
        "value": f"{dice.randrange(100_000, 900_000)}.00",
        "commission_rate": "3.50",
    }
    if dice.random() < 0.6:
        body["assigned_to"] = dice.choice(user.organization.users).id
    return body


async def create_deal(clients: Clients, user: User) -> None:
    property_id = _pick(clients, user, "property")
    if property_id is not None:
        body = _deal(clients, user, property_id)
        await clients.write(user, "deal.create", "POST", "/deals", body, times=_at_once(clients))


async def convert_lead(clients: Clients, user: User) -> None:
    lead_id, property_id = _pick(clients, user, "lead"), _pick(clients, user, "property")
    if lead_id is not None and property_id is not None:
        body = _deal(clients, user, property_id)
        path = f"/leads/{lead_id}/convert"
        await clients.write(user, "lead.convert", "POST", path, body, marked="notes", times=_at_once(clients))


async def move_deal(clients: Clients, user: User) -> None:
    """To any stage."""
    deal_id = _pick(clients, user, "deal")
    if deal_id is not None:
        body = {"stage": clients.dice.choice((*STAGES, "closed_won", "closed_lost"))}
        await clients.write(user, "deal.update", "PATCH", f"/deals/{deal_id}", body, times=_at_once(clients))


async def close_deal(clients: Clients, user: User) -> None:
    """Through the stages to the closing, with what is booked then and mended now and then."""
    property_id = _pick(clients, user, "property")
    if property_id is None:
        return
    for booked in await _close(clients, user, property_id):
        if booked.is_done and clients.dice.random() < 0.3:
            await _mend_transaction(clients, user, f"{booked.path}/{booked.content['id']}")


async def _close(clients: Clients, user: User, property_id: int) -> list[Write]:
    """A deal from its beginning to its end; the transactions booked on it."""
    deal = await clients.write(user, "deal.create", "POST", "/deals", _deal(clients, user, property_id))
    if not deal.is_done:
        return []
    path = f"/deals/{deal.content['id']}"
    for stage in ("contract", "closing", "closed_won"):
        if clients.is_over:
            return []
        await clients.write(user, "deal.update", "PATCH", path, {"stage": stage})
        await clients.rest(0.05)
    booked = []
    for kind in ("commission", "expense"):
        amount = f"{clients.dice.randrange(1, 20_000)}.{clients.dice.randrange(100):02}"
        body = {"transaction_type": kind, "amount": amount, "transaction_date": "2026-01-15"}
        booked.append(await clients.write(user, "transaction.create", "POST", f"{path}/transactions", body))
    return booked


async def _mend_transaction(clients: Clients, user: User, path: str) -> None:
    if clients.dice.random() < 0.5:
        body = {"amount": f"{clients.dice.randrange(1, 20_000)}.50"}
        await clients.write(user, "transaction.update", "PATCH", path, body)
    else:
        await clients.write(user, "transaction.delete", "DELETE", path)


# --- portfolios and lists --------------------------------------------------------------------------------------


async def gather_portfolio(clients: Clients, user: User) -> None:
    dice, properties = clients.dice, user.organization.rows["property"]
    portfolio_id = _pick(clients, user, "portfolio")
    if portfolio_id is None or dice.random() < 0.3:
        body = {"name": "Houses", "property_ids": dice.sample(properties, min(3, len(properties)))}
        await clients.write(user, "portfolio.create", "POST", "/portfolios", body)
    elif (property_id := _pick(clients, user, "property")) is not None:
        path = f"/portfolios/{portfolio_id}/properties/{property_id}"
        method, kind = dice.choice(
            (("POST", "portfolio.add"), ("POST", "portfolio.add"), ("DELETE", "portfolio.remove"))
        )
        await clients.write(user, kind, method, path)


async def look_around(clients: Clients, user: User) -> None:
    """Lists and numbers, which nobody's death may make an error of."""
    paths = (
        "/properties?search=oak", "/leads?page_size=20", "/deals?sort=-value", "/deals/stats", "/portfolios/stats",
        "/analytics/dashboard", "/auth/me", "/sse/status", "/campaigns?include_total=false",
    )  # fmt: skip
    await clients.read(user, clients.dice.choice(paths))


ACTIONS: dict[Action, int] = {
    create_property: 6,
    create_lead: 8,
    change_something: 14,
    change_what_was_read: 14,
    delete_something: 4,
    restore_something: 2,
    assign_lead: 4,
    note_lead: 5,
    create_deal: 5,
    convert_lead: 5,
    move_deal: 10,
    close_deal: 3,
    gather_portfolio: 6,
    look_around: 8,
}


# --- campaigns -------------------------------------------------------------------------------------------------


async def send_campaigns(clients: Clients, organization: Organization, pause: float) -> None:
    """One campaign after the other, some of them held up on their way."""
    dice = clients.dice
    while await clients.rest(pause):
        user = dice.choice(organization.users[:2])
        sent = await _send_campaign(clients, organization, user)
        if sent is not None and sent.is_done and dice.random() < 0.3:
            path = sent.path.removesuffix("/send")
            await clients.rest(1)
            await clients.write(user, "campaign.pause", "POST", f"{path}/pause")
            await clients.rest(1)
            what = dice.choice(("resume", "resume", "cancel"))
            await clients.write(user, f"campaign.{what}", "POST", f"{path}/{what}")


async def _send_campaign(clients: Clients, organization: Organization, user: User) -> Write | None:
    """A campaign with a mark in its subject, to some of the leads."""
    number = len(clients.model.writes) + 1
    body = {
        "name": f"Campaign {number}",
        "campaign_type": "email",
        "subject": f"Campaign c{organization.number}-{number} for you",
        "content": '<p>Hello {{first_name}}, see <a href="https://example.com/">{{property_address}}</a>.</p>',
    }
    made = await clients.write(user, "campaign.create", "POST", "/campaigns", body)
    if not made.is_done:
        return None
    campaign_id, leads = made.content["id"], organization.rows["lead"]
    clients.model.campaigns[campaign_id] = f"c{organization.number}-{number}"
    chosen = {"lead_ids": clients.dice.sample(leads, min(RECIPIENTS, len(leads)))}
    path, times = f"/campaigns/{campaign_id}/send", clients.dice.choice((1, 2))
    return await clients.write(user, "campaign.send", "POST", path, chosen, times=times, marked=None)


async def suppress_somebody(clients: Clients, organization: Organization) -> None:
    """Addresses that no campaign may reach from then on."""
    while await clients.rest(8):
        number = clients.dice.randrange(1, len(clients.model.writes) + 2)
        body = {"email": f"lead{number}@o{organization.number}.example.com", "reason": "asked"}
        await clients.write(organization.users[0], "suppression.create", "POST", "/suppressions", body)


# --- sessions --------------------------------------------------------------------------------------------------


async def come_and_go(clients: Clients, user: User, pause: float) -> None:
    """Log in, exchange the token a few times, log out; the token must be worth nothing at once, everywhere."""
    while await clients.rest(pause):
        family = await _log_in(clients, user)
        if family is None:
            continue
        for _ in range(clients.dice.randrange(4)):
            if family.is_sure:  # Else the token may have been exchanged too long ago, by an answer that was lost.
                await _refresh(clients, family)
        if family.is_sure and clients.dice.random() < 0.5:
            await _log_out(clients, family)


async def _log_in(clients: Clients, user: User) -> Family | None:
    """A new session; None when there was no answer."""
    body = {"email": user.email, "password": user.password}
    answer = await clients.post_plain(user, "/auth/login", body, token="")
    if answer is None or answer.status != 200:
        return None
    content = answer.json()
    family = Family(user, session_of(content["access_token"]))
    family.refresh_token, family.access_token = content["refresh_token"], content["access_token"]
    clients.model.families.append(family)
    return family


async def _refresh(clients: Clients, family: Family) -> None:
    """Exchange the token, now and then several times at once: all get the same next one."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    times = clients.dice.choice((1, 1, 5))
    answers = await asyncio.gather(*(_exchange(clients, family, began) for _ in range(times)))
    got = {answer.status: answer.json() for answer in answers if answer is not None}
    took = loop.time() - began
    if took > REFRESH_SECONDS or not got:
        family.is_sure = False
    elif set(got) != {200}:
        family.is_sure = False
        clients.model.blame("sessions", f"session {family.session_id}: a refresh within {took:.1f} s got {set(got)}")
    else:
        tokens = {answer.json()["refresh_token"] for answer in answers if answer is not None}
        if len(tokens) > 1 or family.refresh_token in tokens:
            clients.model.blame("sessions", f"session {family.session_id}: one refresh token became {len(tokens)}")
        family.refresh_token, family.access_token = tokens.pop(), got[200]["access_token"]
        family.rotations += 1


async def _exchange(clients: Clients, family: Family, began: float) -> RawAnswer | None:
    body = {"refresh_token": family.refresh_token}
    while asyncio.get_running_loop().time() < began + REFRESH_SECONDS:
        answer = await clients.post_plain(family.user, "/auth/refresh", body, token="")
        if answer is not None and answer.status != 503:
            return answer
        await asyncio.sleep(0.1)
    return None


async def _log_out(clients: Clients, family: Family) -> None:
    for _ in range(60):
        answer = await clients.post_plain(family.user, "/auth/logout", None, token=family.access_token)
        if answer is not None and answer.status in (204, 401):
            break
        await asyncio.sleep(0.2)
    else:
        family.is_sure = False
        return
    family.is_ended = True
    after = await clients.read(family.user, "/auth/me", token=family.access_token)
    if after is not None and after.status not in (401, 503):
        clients.model.blame("sessions", f"session {family.session_id}: {after.status} after its log-out")


def session_of(access_token: str) -> int:
    """The session that an access token names."""
    payload = access_token.split(".")[1]
    return int(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"])


__all__ = ["ALL_EVENTS", "PREFIX", "come_and_go", "send_campaigns", "settle_in", "suppress_somebody", "work"]
