"""A short fault run, and each of its checks at work on a copy of what it saw with something wrong in it.

The long run is `make faults`; tools/faults/README.md says how to read one.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from conftest import TestDatabase
from raw_http import RawAnswer
from running import home

from tools.faults.checks import CHECKS, Evidence, _compare, check_all, find_strays
from tools.faults.clients import is_temporary, problem_of
from tools.faults.driver import KINDS, plan
from tools.faults.model import Write
from tools.faults.run import Options, run, summary

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]

SEED = 17
SECONDS = 60.0


@pytest.fixture(scope="module")
async def evidence() -> AsyncIterator[Evidence]:
    """What a run of a minute with each kind of fault has left."""
    options = Options(
        SEED, SECONDS, fault_pause=SECONDS / len(KINDS) / 1.1, organizations=2, clients=4, is_quick=True
    )  # fmt: skip
    print(f"seed {SEED}, {SECONDS:.0f} s")
    with home() as directory:
        yield await run(options, directory, print)


async def test_a_short_run_breaks_no_promise(evidence: Evidence) -> None:
    print("\n".join(summary(evidence)))
    violations = check_all(evidence)
    assert not violations, "\n".join(f"{each.check}: {each.text[:1000]}" for each in violations[:20])
    model, tables = evidence.model, evidence.tables
    assert {fault.kind for fault in model.faults if fault.has_struck} == set(KINDS)
    assert model.statuses["cut"], "clients were cut off"
    assert any(len(write.attempts) > 1 for write in model.writes.values())
    assert "sent" in {row["status"] for row in tables["campaign_recipients"]}
    assert tables["webhook_logs"]
    assert evidence.hooks


# --- each check complains ----------------------------------------------------------------------------------------

SETTLED = 40  # one of the leads that were made before the first fault

Row = dict[str, Any]
Wrong = Callable[[Evidence], Evidence]


def first(rows: list[Row], is_it: Callable[[Row], Any]) -> int:
    return next(place for place, row in enumerate(rows) if is_it(row))


def edited(table: str, is_it: Callable[[Row], Any], **values: Any) -> Wrong:
    """A row of the copy with other values; a function makes one of the row."""

    def edit(evidence: Evidence) -> Evidence:
        rows = list(evidence.tables[table])
        place = first(rows, is_it)
        made = {name: value(rows[place]) if callable(value) else value for name, value in values.items()}
        rows[place] = rows[place] | made
        return with_table(evidence, table, rows)

    return edit


def missing(table: str, is_it: Callable[[Row], Any] = bool) -> Wrong:
    def remove(evidence: Evidence) -> Evidence:
        rows = list(evidence.tables[table])
        del rows[first(rows, is_it)]
        return with_table(evidence, table, rows)

    return remove


def doubled(table: str, is_it: Callable[[Row], Any] = bool, **values: Any) -> Wrong:
    def repeat(evidence: Evidence) -> Evidence:
        rows = list(evidence.tables[table])
        place = first(rows, is_it)
        rows.insert(place + 1, rows[place] | values)
        return with_table(evidence, table, rows)

    return repeat


def with_table(evidence: Evidence, table: str, rows: list[Row]) -> Evidence:
    return replace(evidence, tables=evidence.tables | {table: rows}, _by_id={})


def with_write(is_it: Callable[[Write], Any], **values: Any) -> Wrong:
    """A client that remembers a write otherwise."""

    def change(evidence: Evidence) -> Evidence:
        model, write = copy.copy(evidence.model), None
        write = copy.copy(next(filter(is_it, model.writes.values())))
        for name, value in values.items():
            setattr(write, name, value)
        model.writes = model.writes | {write.id: write}
        return replace(evidence, model=model)

    return change


def with_got(change: Callable[[list[Any]], None]) -> Wrong:
    """A reader that got something else."""

    def alter(evidence: Evidence) -> Evidence:
        follower = copy.copy(evidence.followers[0])
        follower.got = list(follower.got)
        change(follower.got)
        return replace(evidence, followers=[follower, *evidence.followers[1:]])

    return alter


def with_family(is_it: Callable[[Any], Any], **values: Any) -> Wrong:
    def change(evidence: Evidence) -> Evidence:
        model = copy.copy(evidence.model)
        place = next(place for place, each in enumerate(model.families) if is_it(each))
        family = copy.copy(model.families[place])
        for name, value in values.items():
            setattr(family, name, value)
        model.families = [*model.families[:place], family, *model.families[place + 1 :]]
        return replace(evidence, model=model)

    return change


def lose_connection(evidence: Evidence) -> Evidence:
    """One that ended long before the first fault."""
    model = copy.copy(evidence.model)
    model.lost = [*model.lost, (model.began, model.began + 0.1, "GET /x: ConnectionResetError")]
    return replace(evidence, model=model)


def fault_missed(evidence: Evidence) -> Evidence:
    model = copy.copy(evidence.model)
    model.faults = [replace(model.faults[0], has_struck=False), *model.faults[1:]]
    return replace(evidence, model=model)


def idle(evidence: Evidence) -> Evidence:
    model = copy.copy(evidence.model)
    model.writes = dict(itertools.islice(model.writes.items(), 100))
    return replace(evidence, model=model)


def unread(evidence: Evidence) -> Evidence:
    model = copy.copy(evidence.model)
    model.reactions = []
    return replace(evidence, model=model)


def campaign_mail(evidence: Evidence) -> int:
    return next(place for place, mail in enumerate(evidence.mails) if b"Subject: Campaign c" in mail.raw)


def mail_twice(evidence: Evidence) -> Evidence:
    return replace(evidence, mails=[*evidence.mails, evidence.mails[campaign_mail(evidence)]])


def mail_lost(evidence: Evidence) -> Evidence:
    subjects = {row["id"]: row["subject"] for row in evidence.tables["campaigns"]}
    recipients = evidence.tables["campaign_recipients"]
    sent = {(subjects[row["campaign_id"]], row["address"]) for row in recipients if row["status"] == "sent"}
    mails = list(evidence.mails)
    del mails[next(n for n, mail in enumerate(mails) if (str(mail.message["Subject"]), mail.recipient) in sent)]
    return replace(evidence, mails=mails)


def hook_forged(evidence: Evidence) -> Evidence:
    (path, headers, body), *rest = evidence.hooks
    return replace(evidence, hooks=[(path, headers, body + b" "), *rest])


def hook_lost(evidence: Evidence) -> Evidence:
    delivered = str(next(row["id"] for row in evidence.tables["webhook_logs"] if row["status"] == "delivered"))
    return replace(evidence, hooks=[hook for hook in evidence.hooks if hook[1]["webhook-id"] != delivered])


def two_winners(evidence: Evidence) -> Evidence:
    model = copy.copy(evidence.model)
    winner = next(write for write in model.writes.values() if write.if_match and write.is_done)
    other = copy.copy(winner)
    other.id = max(model.writes) + 1
    model.writes = model.writes | {other.id: other}
    return replace(evidence, model=model)


def portfolio_revalued(evidence: Evidence) -> Evidence:
    (portfolio_id, told), *_ = evidence.portfolios.items()
    return replace(evidence, portfolios={portfolio_id: told | {"total_value": "0.01"}})


def of_settled_write(row: Row) -> bool:
    return bool(row["key"] == f"k{SETTLED}")


def of_write(row: Row) -> bool:
    return bool((row["request_id"] or "").startswith("w") and row["action"] == "create" and row["resource_id"])


def is_kind(kind: str) -> Callable[[Write], bool]:
    return lambda write: write.kind == kind and write.is_done


def has_data(name: str) -> Callable[[Row], bool]:
    return lambda row: name in row["data"]


def tenant_job(row: Row) -> bool:
    return row["task_name"] == "send_lead_assigned_email"


WRONGS: list[tuple[str, str, Wrong]] = [
    ("run", "a fault that struck at nothing", fault_missed),
    ("run", "nobody does anything", idle),
    ("run", "a reader of nothing", with_got(list.clear)),
    ("run", "nobody reads a mail", unread),
    ("answers", "a connection lost where nobody was killed", lose_connection),
    ("answers", "a write without an answer", with_write(is_kind("lead.create"), status=None)),
    ("writes", "an acknowledged write that was lost", missing("audit_logs", of_write)),
    ("writes", "a write done by two attempts",
     doubled("audit_logs", of_write, request_id=f"w{SETTLED}-77")),
    ("writes", "a refused write that was done", with_write(is_kind("property.update"), status=409)),
    ("keys", "an answer that was not kept", missing("idempotency_keys", of_settled_write)),
    ("keys", "another answer than the first", edited("idempotency_keys", of_settled_write, body=b"{}")),
    ("rows", "a row that is gone", missing("properties")),
    ("contents", "a row that is gone", missing("leads")),
    ("contents", "a change that is gone", edited("properties", lambda r: r["description"], description="m0")),
    ("contents", "a row without an audit row", doubled("deals", id=10**9)),
    ("contents", "a deletion that is gone", edited("leads", lambda r: not r["deleted_at"], deleted_at="now")),
    ("contents", "a change that was overwritten",
     edited("audit_logs", lambda r: r["action"] == "update" and "description" in r["changes"],
            changes=lambda r: r["changes"] | {"description": ["m0", r["changes"]["description"][1]]})),
    ("conditions", "two winners with one tag", two_winners),
    ("conditions", "what somebody else wrote is overwritten",
     with_write(lambda w: w.if_match and w.is_done, seen="m0")),
    ("numbers", "a gap", missing("events")),
    ("numbers", "not in the order of the commits",
     edited("events", lambda r: r["id"] == 5, committed_at=lambda r: r["committed_at"] + timedelta(hours=1))),
    ("events", "an event that is gone", missing("events", lambda r: r["type"] == "lead.updated")),
    ("events", "an event twice", doubled("events", lambda r: r["type"] == "deal.created")),
    ("events", "an event with another content",
     edited("events", lambda r: r["type"] == "property.updated" and r["data"]["price"],
            data=lambda r: r["data"] | dict.fromkeys(r["data"], "0"))),
    ("events", "a completion that nobody is told of", missing("events", lambda r: r["type"] == "campaign.completed")),
    ("streams", "an event that a reader misses", with_got(lambda got: got.pop(3))),
    ("streams", "an event that a reader gets twice", with_got(lambda got: got.insert(3, got[3]))),
    ("streams", "two events in the wrong order", with_got(lambda got: got.insert(3, got.pop(5)))),
    ("streams", "an event with another content",
     with_got(lambda got: got.insert(3, replace(got.pop(3), data={"type": "x", "data": {}})))),
    ("deals", "a history that lacks an entry", missing("deal_stage_changes", lambda r: r["old_stage"])),
    ("deals", "a deal without a history", missing("deal_stage_changes", lambda r: not r["old_stage"])),
    ("deals", "a property that nobody holds", edited("properties", lambda r: r["status"] == "available",
                                                     status="under_contract")),
    ("conversions", "a converted lead without a deal", edited("deals", lambda r: r["lead_id"], lead_id=None)),
    ("sums", "a transaction with another amount", edited("transactions", bool, amount=Decimal("0.01"))),
    ("sums", "a transaction that is gone", missing("transactions")),
    ("sums", "a property that fell out of its portfolio", missing("portfolio_properties")),
    ("sums", "a portfolio with another value", portfolio_revalued),
    ("organisations", "an event with another's row",
     edited("events", has_data("organization_id"), data=lambda r: r["data"] | {"organization_id": 10**9})),
    ("organisations", "a job about another's lead",
     edited("procrastinate_jobs", tenant_job, args=lambda r: r["args"] | {"organization_id": 10**9})),
    ("campaigns", "a mail twice", mail_twice),
    ("campaigns", "a mail that never arrived", mail_lost),
    ("campaigns", "a recipient in between", edited("campaign_recipients", lambda r: r["status"] == "sent",
                                                   status="sending")),
    ("campaigns", "a counter that is off", edited("campaigns", lambda r: r["sent_count"], sent_count=10**6)),
    ("campaigns", "a campaign that goes on", edited("campaigns", lambda r: r["status"] == "completed",
                                                    status="in_progress")),
    ("reactions", "an opening that is gone", edited("campaign_recipients", lambda r: r["opened_at"], opened_at=None)),
    ("reactions", "a click that is not counted", edited("campaigns", lambda r: r["clicked_count"], clicked_count=0)),
    ("reactions", "an unsubscription that is gone", lambda evidence: with_table(evidence, "suppressions", [])),
    ("jobs", "a job that is gone", missing("procrastinate_jobs", tenant_job)),
    ("jobs", "a job twice", doubled("procrastinate_jobs", tenant_job, id=10**9)),
    ("jobs", "a job that nobody runs", edited("procrastinate_jobs", tenant_job, status="doing")),
    ("jobs", "a run that never ended", edited("job_runs", bool, finished_at=None)),
    ("jobs", "a job that failed by a deadlock",
     edited("job_runs", bool, error="An internal error occurred (DeadlockDetectedError).")),
    ("jobs", "a job that never ran", lambda evidence: with_table(evidence, "job_runs", [])),
    ("webhooks", "a delivery that is gone", missing("webhook_logs")),
    ("webhooks", "a delivery twice", doubled("webhook_logs")),
    ("webhooks", "a delivery that waits", edited("webhook_logs", bool, status="pending")),
    ("webhooks", "a delivery that never arrived", hook_lost),
    ("webhooks", "a wrong signature", hook_forged),
    ("sessions", "a log-out that is forgotten",
     with_family(lambda f: not f.is_ended and f.is_sure, is_ended=True)),
    ("sessions", "a rotation that is forgotten", with_family(lambda f: f.is_sure, rotations=99)),
    ("sessions", "a session that is gone", with_family(bool, session_id=10**9)),
]  # fmt: skip


@pytest.mark.parametrize(("check", "wrong"), [(c, w) for c, _, w in WRONGS], ids=[f"{c}: {n}" for c, n, _ in WRONGS])
async def test_each_check_complains(evidence: Evidence, check: str, wrong: Wrong) -> None:
    before = list(CHECKS[check](evidence))
    after = list(CHECKS[check](wrong(evidence)))
    assert set(after) - set(before)


def test_every_check_is_shown_at_work() -> None:
    assert {check for check, _, _ in WRONGS} == set(CHECKS)


def happened(action: str, **changes: list[Any]) -> Row:
    """An audit row."""
    return {"action": action, "changes": changes, "organization_id": 1, "user_id": 2, "request_id": "w1-1"}


def told(type_: str, **data: Any) -> Row:
    """An event."""
    return {"id": 1, "type": type_, "data": data, "organization_id": 1, "actor_id": 2}


@pytest.mark.parametrize(
    ("change", "later", "is_fine"),
    [
        ({"status": ["sold", "available"]}, [], True),
        ({"status": ["sold", "available"]}, [told("property.updated", status="available")], False),
        ({"price": ["1.00", "2.00"]}, [], False),
        ({"status": ["sold", "available"], "price": ["1.00", "2.00"]}, [], False),
    ],
)
def test_nobody_is_told_what_a_deal_does_to_a_deleted_property(
    change: dict[str, list[Any]], later: list[Row], is_fine: bool
) -> None:
    entries = [happened("create", status=[None, "sold"]), happened("delete"), happened("update", **change)]
    events = [told("property.created", status="sold"), told("property.deleted"), *later]
    assert (not list(_compare("property", 1, entries, events))) == is_fine
    # What comes after it is restored is told again, with the status that it got meanwhile.
    entries += [happened("restore"), happened("update", price=["2.00", "3.00"])]
    events += [told("property.updated", status="available"), told("property.updated", price="3.00")]
    assert (not list(_compare("property", 1, entries, events))) == is_fine


async def test_a_row_of_another_organisation_is_found(fresh_database: TestDatabase) -> None:
    conn = await asyncpg.connect(fresh_database.superuser_dsn)
    try:
        await conn.execute(
            "insert into organizations (name, slug) values ('A', 'a'), ('B', 'b');"
            "insert into leads (organization_id, first_name, last_name, source)"
            " select id, 'X', 'Y', 'other' from organizations;"
            "alter table lead_notes drop constraint lead_notes_organization_id_lead_id_fkey;"
            "alter table leads add unique (id);"
            "alter table lead_notes add foreign key (lead_id) references leads (id)"
        )
        assert await find_strays(conn) == []
        await conn.execute(
            "insert into lead_notes (organization_id, lead_id, content)"
            " select min(organization_id), max(id), 'x' from leads"
        )
        (stray,) = await find_strays(conn)
    finally:
        await conn.close()
    assert stray.startswith("lead_notes.lead_id = ")


# --- answers and plans -------------------------------------------------------------------------------------------

REFUSED = {"error": {"type": "DatabaseError", "message": "", "details": {}, "request_id": ""}}


@pytest.mark.parametrize(
    ("status", "headers", "body", "is_fine"),
    [
        (200, {}, {"organization_id": 1}, True),
        (200, {}, {"organization_id": 2}, False),
        (200, {}, {"items": [{"organization_id": 1}, {"organization_id": 2}]}, False),
        (200, {}, b'{"id": 1', False),
        (200, {}, b"", False),
        (204, {}, b"", True),
        (404, {}, REFUSED, True),
        (404, {}, {"message": "Not found"}, False),
        (500, {}, REFUSED, False),
        (502, {}, REFUSED, False),
        (503, {"retry-after": "1"}, REFUSED, True),
        (503, {}, REFUSED, False),
        (503, {"retry-after": "1"}, b"Service Unavailable", False),
    ],
)
def test_an_answer_is_judged(status: int, headers: dict[str, str], body: Any, is_fine: bool) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert (problem_of(RawAnswer(status, tuple(headers.items()), raw), 1) is None) == is_fine


def test_only_what_may_change_is_sent_again() -> None:
    def answer(status: int, type_: str) -> RawAnswer:
        return RawAnswer(status, (), json.dumps({"error": REFUSED["error"] | {"type": type_}}).encode())

    assert is_temporary(answer(503, "DatabaseError"))
    assert is_temporary(answer(409, "IdempotencyConflictError"))
    assert not is_temporary(answer(409, "DealClosedError"))
    assert not is_temporary(answer(412, "PreconditionFailedError"))


def test_a_seed_says_what_comes_when() -> None:
    kinds = list(KINDS)
    planned = plan(7, 600, kinds, 5)
    assert planned == plan(7, 600, kinds, 5)
    assert planned != plan(8, 600, kinds, 5)
    assert {step.kind for step in planned[: len(kinds)]} == set(kinds)
    assert len(planned) > 80
    assert all(before.at < after.at < 600 for before, after in itertools.pairwise(planned))
