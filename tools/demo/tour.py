"""The tour itself: one function a step, in the order in which they are gone through."""

from __future__ import annotations

import re
import secrets
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from typing import Any

from screen import Screen
from wire import Answer, Events, Person, Service, TourError, Upload

PRICE, OFFER, RATE = "640000.00", "625000.00", "3.00"
COMMISSION = "18750.00"  # RATE percent of OFFER
PERSON = ("id", "organization_id", "email", "is_verified")
PROPERTY = ("id", "address", "city", "status", "price")
LEAD = ("id", "first_name", "last_name", "email", "status", "score")
DEAL = ("id", "property_id", "lead_id", "stage", "value", "commission_rate", "probability")
CAMPAIGN = ("id", "name", "status", "total_recipients", "sent_count", "delivered_count")
OPEN_STAGES = ("qualified", "proposal", "negotiation", "contract", "inspection", "financing", "closing")
MAIL_SECONDS = 15.0  # that a mail may take to the outbox


@dataclass
class Tour:
    """What the steps hand on."""

    service: Service
    screen: Screen
    mark: str = field(default_factory=lambda: f"{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    ids: dict[str, Any] = field(default_factory=dict)
    has_outbox: bool = False
    _ann: Person | None = None
    _events: Events | None = None

    @property
    def ann(self) -> Person:
        assert self._ann is not None
        return self._ann

    @property
    def events(self) -> Events:
        assert self._events is not None
        return self._events

    def run(self) -> None:
        """Go through all steps, and leave no reader behind."""
        try:
            for number, (title, step) in enumerate(STEPS, 1):
                self.screen.title(number, len(STEPS), title)
                step(self)
                if number < len(STEPS):
                    self.screen.pause()
        finally:
            if self._events is not None:
                self._events.close()


# --- Steps ------------------------------------------------------------------------------------------------------


def look_around(tour: Tour) -> None:
    tour.screen.say(f"The tour talks to {tour.service.url} as any program would. First: is everything well there?")
    health = tour.service.health()
    if not health.headers.get("content-type", "").startswith("application/json"):
        raise TourError(f"What answers at {tour.service.url} is not Real Estate OS.")
    state = health.json
    if not isinstance(state, dict) or state.get("service") != "Real Estate OS API":
        raise TourError(f"What answers at {tour.service.url} is not Real Estate OS.")
    tour.screen.line()
    rows = [(name, check["status"], f"{check['response_time_ms']} ms") for name, check in state["checks"].items()]
    tour.screen.table([("service", state["status"], f"version {state['version']}"), *rows])
    if state["status"] == "unhealthy":
        raise TourError("The service is unhealthy, so the tour ends here; `reos doctor` may say why.")
    tour.has_outbox = tour.service.page("/dev/outbox") is not None
    if not tour.has_outbox:
        tour.screen.note("Its outbox is not shown, so its mails go to a mail server: to example.com, where nobody is.")


def register(tour: Tour) -> None:
    tour.screen.say(
        "Whoever registers founds an organisation, and is its Admin. All that follows belongs to this organisation, "
        "and row-level security in the database keeps every other one out."
    )
    tour._ann = _register(tour, "Ann", "Lee", f"Lee Realty {tour.mark}")
    if tour.has_outbox:
        tour.screen.say("A mail came with a link that verifies the address. Its page sends the token in the link:")
        token = _token_of(_mail(tour, tour.ann.email, "verify-email?token="))
        tour.service.post("/auth/verify-email", body={"token": token}, status=204)
    tour.service.get("/auth/me", tour.ann, shown=PERSON)


def follow_events(tour: Tour) -> None:
    tour.screen.say(
        "GET /sse/stream stays open and tells what happens in the organisation, the moment it is committed. From here "
        "on a reader runs beside the tour; what it receives stands on lines that begin with 'live'."
    )
    tour._events = Events(tour.service, tour.ann)
    tour.events.wait_for("connected")


def list_property(tour: Tour) -> None:
    tour.screen.say("A property, and its picture. The service makes the thumbnail; money is exact, so it is a string.")
    house = {
        "address": "12 Oak Street", "city": "Austin", "state": "TX", "zip_code": "78704",
        "property_type": "single_family", "price": PRICE, "bedrooms": 3, "bathrooms": 2,
        "features": ["porch", "garden"],
    }  # fmt: skip
    created = tour.service.post("/properties", tour.ann, house, shown=PROPERTY)
    tour.ids["property"] = created.json["id"]
    tour.events.wait_for("property.created", id=tour.ids["property"])
    picture = Upload("front.png", draw_house(), "image/png", {"title": "From the street", "is_primary": "true"})
    path = f"/properties/{tour.ids['property']}/images"
    image = tour.service.post(path, tour.ann, picture, shown=("id", "title", "is_primary", "thumbnail_url"))
    tour.screen.say(f"Anybody who has its address can see it: {image.json['url']}")


def take_leads(tour: Tour) -> None:
    tour.screen.say("Two people are interested. A lead has a source, a score and a budget.")
    for first, last, score in (("Grace", "Hopper", 85), ("Alan", "Turing", 60)):
        lead = {
            "first_name": first, "last_name": last, "email": f"{first.lower()}.{tour.mark}@example.com",
            "source": "website", "score": score, "budget": "650000.00",
        }  # fmt: skip
        tour.ids[first] = tour.service.post("/leads", tour.ann, lead, shown=LEAD).json["id"]
        tour.events.wait_for("lead.created", id=tour.ids[first])


def retry(tour: Tour) -> None:
    tour.screen.say(
        "Was that request received before the connection broke? With an Idempotency-Key one just sends it again. Key, "
        "work and answer were committed together, so the same answer comes back, and nothing happens twice."
    )
    path, call = f"/leads/{tour.ids['Grace']}/activities", {"activity_type": "call", "description": "Wants to visit."}
    key = {"Idempotency-Key": f"tour-{tour.mark}"}
    first = tour.service.post(path, tour.ann, call, headers=key, shown=("id", "activity_type", "description"))
    again = tour.service.post(path, tour.ann, call, headers=key, shown=("id", "activity_type", "description"))
    _expect(again.headers.get("idempotency-replayed") == "true", "The second answer was not a replay.")
    _expect(first.json["id"] == again.json["id"], "The retry made a second activity.")
    count = tour.service.get(path, tour.ann, shown=("id", "activity_type")).headers.get("x-total-count")
    _expect(count == "1", f"There are {count} activities where one was expected.")


def convert(tour: Tour) -> None:
    tour.screen.say("Grace makes an offer: her lead becomes a deal, in one transaction. A second time is a conflict.")
    deal = {"property_id": tour.ids["property"], "deal_type": "sell", "value": OFFER, "commission_rate": RATE}
    path = f"/leads/{tour.ids['Grace']}/convert"
    tour.ids["deal"] = tour.service.post(path, tour.ann, deal, shown=DEAL).json["id"]
    tour.events.wait_for("lead.converted", id=tour.ids["Grace"])
    tour.events.wait_for("deal.created", id=tour.ids["deal"])
    tour.service.post(path, tour.ann, deal, status=409)


def close_deal(tour: Tour) -> None:
    tour.screen.say(
        "The deal moves through the pipeline. From the contract on it holds the property, which nobody else can sell "
        "then; winning it makes the property sold. Every move is kept, with who and when."
    )
    deal, house = f"/deals/{tour.ids['deal']}", f"/properties/{tour.ids['property']}"
    for stage in OPEN_STAGES:
        tour.service.patch(deal, tour.ann, {"stage": stage}, shown=("id", "stage"))
        tour.events.wait_for("deal.stage_changed", deal_id=tour.ids["deal"], new_stage=stage)
        if stage == "contract":
            tour.service.get(house, tour.ann, shown=PROPERTY)
    won = {"stage": "closed_won", "probability": 100}
    tour.service.patch(deal, tour.ann, won, shown=(*DEAL, "closed_at"))
    tour.events.wait_for("deal.stage_changed", deal_id=tour.ids["deal"], new_stage="closed_won")
    tour.service.get(house, tour.ann, shown=PROPERTY)
    tour.screen.say(f"{RATE} % of {OFFER}: the commission is booked as a transaction of the deal.")
    commission = {
        "transaction_type": "commission", "amount": COMMISSION, "transaction_date": f"{datetime.now(UTC):%Y-%m-%d}",
    }  # fmt: skip
    shown = ("id", "transaction_type", "amount", "transaction_date")
    tour.service.post(f"{deal}/transactions", tour.ann, commission, shown=shown)
    history = tour.service.get(f"{deal}/history", tour.ann, shown=("old_stage", "new_stage", "changed_at"))
    _expect(history.json[0]["new_stage"] == "closed_won", "The history does not end with the winning.")


def make_portfolio(tour: Tour) -> None:
    tour.screen.say("Properties can be gathered in portfolios, whose value is always that of what is in them.")
    portfolio = {"name": f"Oak Street {tour.mark}", "property_ids": [tour.ids["property"]]}
    shown = ("id", "name", "property_count", "total_value")
    created = tour.service.post("/portfolios", tour.ann, portfolio, shown=shown)
    tour.ids["portfolio"] = created.json["id"]


def send_campaign(tour: Tour) -> None:
    tour.screen.say(
        "A campaign writes to many leads. Its text has merge fields; a misspelt one is refused when it is saved. The "
        "preview shows what one of them would get."
    )
    campaign = {
        "name": f"Open house {tour.mark}", "campaign_type": "email", "subject": "{{first_name}}, see our new homes",
        "content": "<p>Dear {{first_name}},</p><p>visit us on Sunday. Yours, {{agent_name}}, {{organization_name}}</p>",
    }  # fmt: skip
    tour.service.post("/campaigns", tour.ann, {**campaign, "subject": "{{frist_name}}"}, status=422)
    campaign_id = tour.service.post("/campaigns", tour.ann, campaign, shown=CAMPAIGN).json["id"]
    tour.ids["campaign"] = campaign_id
    path = f"/campaigns/{campaign_id}"
    tour.service.post(f"{path}/preview", tour.ann, {"lead_id": tour.ids["Alan"]}, status=200, shown=("subject", "text"))
    tour.screen.say("Sending freezes the recipients; a worker writes to each of them at most once, whatever dies.")
    chosen = {"lead_ids": [tour.ids["Grace"], tour.ids["Alan"]]}
    tour.service.post(f"{path}/send", tour.ann, chosen, status=200, shown=CAMPAIGN)
    tour.events.wait_for("campaign.completed", id=campaign_id)
    tour.service.get(f"{path}/recipients", tour.ann, shown=("items", "total", "address", "status", "sent_at"))


def look_into_outbox(tour: Tour) -> None:
    if not tour.has_outbox:
        tour.screen.say("The outbox of this service is not shown, so this step is left out.")
        return
    tour.screen.say(f"No mail server is set, so the mails lie in the outbox: {tour.service.url}/dev/outbox shows them.")
    rows = [("To", "Subject")]
    for first in ("Grace", "Alan"):
        address = f"{first.lower()}.{tour.mark}@example.com"
        mail = _mail(tour, address, "")
        subject = re.search(r"<h1>(.*?)</h1>", mail)
        rows.append((address, unescape(subject[1]) if subject else ""))
        _expect("/t/u/" in mail, "The mail has no link to unsubscribe.")
    tour.screen.line()
    tour.screen.table(rows)
    tour.screen.say("Each mail ends with a link to unsubscribe, and mail programs can do it with one click.")


def look_at_numbers(tour: Tour) -> None:
    tour.screen.say("What it all comes to, counted at this moment.")
    shown = ("total_properties", "total_leads", "total_deals", "total_deal_value", "revenue", "total_commissions")
    dashboard = tour.service.get("/analytics/dashboard", tour.ann, shown=shown).json
    _expect(dashboard["revenue"]["total_commissions"] == COMMISSION, "The dashboard does not count the commission.")
    tour.service.get("/deals/stats", tour.ann, shown=("total_deals", "total_value", "won_deals", "win_rate"))
    tour.service.get("/leads/stats", tour.ann, shown=("total_leads", "avg_score", "conversion_rate"))
    tour.service.get("/campaigns/stats", tour.ann, shown=("total_sent", "total_delivered", "delivery_rate"))


def collide(tour: Tour) -> None:
    tour.screen.say(
        "Two people have read the same property and change it at the same time. Both say with If-Match what they have "
        "read. The first one wins; the second one learns that it has changed meanwhile, and overwrites nothing."
    )
    path = f"/properties/{tour.ids['property']}"
    tag = {"If-Match": tour.service.get(path, tour.ann, shown=PROPERTY).headers["etag"]}
    first, second = {"description": "With a new roof."}, {"description": "With an old roof."}
    tour.service.patch(path, tour.ann, first, headers=tag, shown=("id", "description"))
    tour.events.wait_for("property.updated", id=tour.ids["property"], description=first["description"])
    tour.service.patch(path, tour.ann, second, headers=tag, status=412)


def stay_apart(tour: Tour) -> None:
    tour.screen.say(
        "Bob founds another organisation. To him Ann's property is not forbidden, it does not exist: the answer is the "
        "same as for a number that nobody has."
    )
    bob = _register(tour, "Bob", "Ray", f"Ray Homes {tour.mark}")
    ours = tour.service.get(f"/properties/{tour.ids['property']}", bob, status=404)
    nobodys = tour.service.get(f"/properties/{2**62}", bob, status=404)
    _expect(_without_id(ours) == _without_id(nobodys), "The two answers differ.")


def read_audit(tour: Tour) -> None:
    tour.screen.say("Who did what, and what was it before? Each change has left a row that nobody can change.")
    fields = "id,action,resource_type,resource_id,changes,created_at"
    path = f"/audit-logs?page_size=100&fields={fields}"
    entries = tour.service.get(path, tour.ann, shown=("items", "total", "action", "resource_type", "changes")).json
    tour.screen.line()
    rows = [("When", "Action", "What", "Fields")]
    for entry in reversed(entries["items"][:12]):
        what = f"{entry['resource_type']} {entry['resource_id'] or ''}"
        rows.append((entry["created_at"][11:19], entry["action"], what, ", ".join(list(entry["changes"] or {})[:4])))
    tour.screen.table(rows)
    _say_goodbye(tour)


def _say_goodbye(tour: Tour) -> None:
    tour.screen.say("That was the tour. What it made is still there, for you to look at:")
    url = tour.service.url
    tour.screen.line()
    lines = [("Log-in", f"{tour.ann.email}  {tour.ann.password}"), ("Try out", f"{url}/docs"), ("Read", f"{url}/redoc")]
    if tour.has_outbox:
        lines.append(("Mails", f"{url}/dev/outbox"))
    tour.screen.table(lines)


STEPS: list[tuple[str, Callable[[Tour], None]]] = [
    ("Is the service there?", look_around),
    ("Register", register),
    ("Live events", follow_events),
    ("A property with a picture", list_property),
    ("Two leads", take_leads),
    ("The same request twice", retry),
    ("A lead becomes a deal", convert),
    ("Through the pipeline to the commission", close_deal),
    ("A portfolio", make_portfolio),
    ("A campaign", send_campaign),
    ("The outbox", look_into_outbox),
    ("Dashboard and statistics", look_at_numbers),
    ("Two writers, one winner", collide),
    ("Another organisation", stay_apart),
    ("The audit log", read_audit),
]

# --- What several steps need ------------------------------------------------------------------------------------


def _register(tour: Tour, first: str, last: str, organization: str) -> Person:
    person = Person(f"{first.lower()}.{tour.mark}@example.com", f"Tour-{secrets.token_hex(4)}-A1")
    registration = {
        "email": person.email, "password": person.password, "first_name": first, "last_name": last,
        "organization_name": organization,
    }  # fmt: skip
    shown = ("access_token", "expires_in", "user", *PERSON)
    person.take(tour.service.post("/auth/register", body=registration, shown=shown).json)
    return person


def _mail(tour: Tour, address: str, text: str) -> str:
    """The outbox's page of a mail to this address that has this text in it."""
    deadline = time.monotonic() + MAIL_SECONDS
    seen: set[str] = set()
    while time.monotonic() < deadline:
        listed = tour.service.page("/dev/outbox") or ""
        for path in re.findall(
            rf'href="[^"]*(/dev/outbox/[^"]+)"[^<]*>[^<]*</a>\s*<span>{re.escape(address)},', listed
        ):
            if path in seen:
                continue
            seen.add(path)
            mail = tour.service.page(path) or ""
            if text in mail:
                return mail
        time.sleep(0.3)
    raise TourError(f"No mail to {address} came to the outbox within {MAIL_SECONDS:.0f} s; does a worker run?")


def _token_of(mail: str) -> str:
    found = re.search(r"verify-email\?token=([A-Za-z0-9_.-]+)", mail)
    if found is None:
        raise TourError("The mail has no link that verifies the address.")
    return found[1]


def _without_id(answer: Answer) -> Any:
    error = dict(answer.json["error"])
    error.pop("request_id")
    return error


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise TourError(otherwise)


def draw_house(width: int = 320, height: int = 200) -> bytes:
    """A picture of a house, as PNG."""

    def colour(x: int, y: int) -> bytes:
        if 90 <= x < 230 and 100 <= y < 170:
            return b"\x7a\x4a\x2b" if 145 <= x < 175 and y >= 125 else b"\xf3\xe3\xc3"
        if 50 <= y < 100 and abs(x - 160) <= (y - 50) * 1.7:
            return b"\xa3\x3b\x2b"
        return b"\x5f\x9c\x53" if y >= 170 else b"\xb9\xdc\xf2"

    rows = b"".join(b"\0" + b"".join(colour(x, y) for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
