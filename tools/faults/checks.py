"""What must be true once all is quiet. Each check is a function over the model and a copy of the database.

A check yields a sentence for each thing that is wrong. A new one is a function with a line in CHECKS; it needs a line
in tests/test_faults.py that shows it at work on a copy with something wrong in it.
"""

from __future__ import annotations

import builtins
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from email.parser import BytesHeaderParser
from typing import Any

import asyncpg
from mail_sink import ReceivedMail
from webhook_receiver import is_signed

from reos.jobs.connector import LOST
from tools.faults.driver import LOSS_SECONDS
from tools.faults.followers import Follower
from tools.faults.model import Model, Violation, Write, parse_request_id

Row = dict[str, Any]

TABLES = (
    "organizations", "users", "properties", "leads", "lead_notes", "lead_activities", "deals", "deal_stage_changes",
    "transactions", "portfolios", "portfolio_properties", "campaigns", "campaign_recipients", "suppressions",
    "audit_logs", "events", "event_counters", "idempotency_keys", "webhook_endpoints", "webhook_logs", "job_runs",
    "sessions", "procrastinate_jobs",
)  # fmt: skip
TABLE_OF = {
    "property": "properties", "lead": "leads", "deal": "deals", "portfolio": "portfolios", "campaign": "campaigns",
    "transaction": "transactions", "lead_note": "lead_notes", "lead_activity": "lead_activities",
}  # fmt: skip
DELETED_FOR_GOOD = {"transaction"}
PUBLISHED = ("property", "lead", "deal", "campaign")
HOLDING = {"contract", "inspection", "financing", "closing"}
CLOSED = {"closed_won", "closed_lost"}
COUNTERS = {
    "sent_count": {"sent", "bounced"},
    "delivered_count": {"sent"},
    "failed_count": {"failed"},
    "suppressed_count": {"suppressed"},
    "unknown_count": {"unknown"},
}
TIME_OF = {"o": "opened_at", "c": "clicked_at", "u": "unsubscribed_at"}
ENDS = {"sent", "failed", "suppressed", "unknown"}
ENOUGH_WRITES = 150
# What a write of this kind leaves in the audit log: action, and the resource's type.
AUDITED = {
    "create": "create", "update": "update", "delete": "delete", "restore": "restore", "assign": "assign",
    "convert": "convert", "send": "send", "add": "update", "remove": "update", "pause": "update", "resume": "update",
    "cancel": "update", "register": "create",
}  # fmt: skip


@dataclass(eq=False)
class Evidence:
    """All that is looked at: what clients know, what the database holds, and what arrived outside."""

    model: Model
    tables: dict[str, list[Row]]
    strays: list[str]  # rows that point into another organisation
    mails: list[ReceivedMail] = field(default_factory=list)
    hooks: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)  # path, headers, body
    followers: list[Follower] = field(default_factory=list)
    portfolios: dict[int, Row] = field(default_factory=dict)  # as GET gives them in the end
    _by_id: dict[str, dict[int, Row]] = field(default_factory=dict)

    def rows(self, table: str) -> dict[int, Row]:
        """The rows of a table by their ids."""
        if table not in self._by_id:
            self._by_id[table] = {row["id"]: row for row in self.tables[table]}
        return self._by_id[table]


# --- the copy ----------------------------------------------------------------------------------------------------


async def copy_tables(conn: asyncpg.Connection) -> dict[str, list[Row]]:
    """Every table of TABLES in one state, in the order of the keys; events with the time of their commit."""
    tables = {}
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        for table in TABLES:
            extra = ", pg_xact_commit_timestamp(xmin) as committed_at" if table == "events" else ""
            rows = await conn.fetch(f"select *{extra} from {table} order by 1, 2")  # noqa: S608
            tables[table] = [{name: _plain(value) for name, value in row.items()} for row in rows]
    for name in ("events", "audit_logs", "job_runs"):
        tables[name].sort(key=lambda row: (row["organization_id"], row["id"]))
    return tables


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


async def find_strays(conn: asyncpg.Connection) -> list[str]:
    """Rows that refer to a row of another organisation, over all foreign keys between tables of organisations."""
    keys = await conn.fetch(
        "select c.conrelid::regclass::text as source, c.confrelid::regclass::text as target,"
        " array_agg(a.attname::text order by k.o) as columns, array_agg(b.attname::text order by k.o) as targets"
        " from pg_constraint c cross join unnest(c.conkey, c.confkey) with ordinality k (n, m, o)"
        " join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.n"
        " join pg_attribute b on b.attrelid = c.confrelid and b.attnum = k.m"
        " where c.contype = 'f' and not exists (select from unnest(array[c.conrelid, c.confrelid]) t"
        "  where not exists (select from pg_attribute o where o.attrelid = t and o.attname = 'organization_id'))"
        " group by c.oid, c.conrelid, c.confrelid"
    )
    strays = []
    for key in keys:
        pairs = [pair for pair in zip(key["columns"], key["targets"], strict=True) if pair[1] != "organization_id"]
        if not pairs:
            continue  # the key is the organisation itself
        on = " and ".join(f"s.{ours} = t.{theirs}" for ours, theirs in pairs)
        found = await conn.fetch(
            f"select s.organization_id as a, t.organization_id as b, s.{pairs[0][0]} as id from {key['source']} s"  # noqa: S608
            f" join {key['target']} t on {on} where t.organization_id <> s.organization_id limit 5"
        )
        strays += [f"{key['source']}.{pairs[0][0]} = {row['id']}: {row['a']} points to {row['b']}" for row in found]
    return strays


# --- helpers -----------------------------------------------------------------------------------------------------


def _same(stored: Any, told: Any) -> bool:
    """Whether a column holds what the API told of it."""
    if isinstance(stored, Decimal):
        return told is not None and Decimal(str(told)) == stored
    if isinstance(stored, datetime):
        return told is not None and datetime.fromisoformat(told).astimezone(UTC) == stored.astimezone(UTC)
    if isinstance(stored, date):
        return bool(told == stored.isoformat())
    return bool(stored == told)


def _audits_of_writes(evidence: Evidence) -> dict[int, dict[int, list[Row]]]:
    """The audit rows of each write, by attempt."""
    found: dict[int, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in evidence.tables["audit_logs"]:
        if named := parse_request_id(row["request_id"]):
            found[named[0]][named[1]].append(row)
    return found


def _audits_of_rows(evidence: Evidence) -> dict[tuple[str, int], list[Row]]:
    """The audit rows of each resource, in their order."""
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in evidence.tables["audit_logs"]:
        found[row["resource_type"], row["resource_id"]].append(row)
    return found


def _by(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)].append(row)
    return found


# --- the run itself ----------------------------------------------------------------------------------------------


def check_run(evidence: Evidence) -> Iterator[str]:
    """Each fault has struck, and there was work for it to strike at: a run of nothing would break no promise."""
    for fault in evidence.model.faults:
        if not fault.has_struck:
            yield f"{fault.kind} at {fault.began - evidence.model.began:.0f} s found nothing to strike at"
    done = sum(write.is_done for write in evidence.model.writes.values())
    if done < ENOUGH_WRITES:
        yield f"only {done} writes were done"
    if not all(follower.got for follower in evidence.followers):
        yield "a reader of the event stream got nothing"
    if not evidence.model.reactions:
        yield "nobody did anything with a mail"


# --- writes ------------------------------------------------------------------------------------------------------


def check_answers(evidence: Evidence) -> Iterator[str]:
    """Every write got a final answer, and connections were lost only where a process was killed."""
    model = evidence.model
    for write in model.writes.values():
        if write.status is None and not write.is_abandoned:
            yield f"{write} never got a final answer"
    losses = [fault for fault in model.faults if fault.loses_connections]
    for began, ended, what in model.lost:
        if not any(f.began - 0.05 <= ended and began <= (f.ended or ended) + LOSS_SECONDS for f in losses):
            yield f"at {began - model.began:.2f}-{ended - model.began:.2f} s, where no server was killed: {what}"


def check_writes(evidence: Evidence) -> Iterator[str]:
    """Every acknowledged write was done once, in one attempt; what was refused or unknown not more than that."""
    audits = _audits_of_writes(evidence)
    for write in evidence.model.writes.values():
        # (Who has a lead already is not assigned it again.)
        attempts = audits.get(write.id, {})
        if write.is_done and len(attempts) != 1 and not (write.kind == "lead.assign" and not attempts):
            yield f"{write} was acknowledged and was done in {len(attempts)} attempts"
        elif write.status is None and len(attempts) > 1:
            yield f"{write} was given up and done in {len(attempts)} attempts"
        elif write.status is not None and not write.is_done and attempts:
            yield f"{write} was refused with {write.status} and left {len(attempts)} audited attempts"
        for rows in attempts.values():
            yield from _check_audit(write, rows)


def _check_audit(write: Write, rows: list[Row]) -> Iterator[str]:
    kind, _, what = write.kind.partition(".")
    fitting = [row for row in rows if row["action"] == AUDITED[what] and row["resource_type"] == kind]
    if len(fitting) != 1:
        yield f"{write} left {len(fitting)} audit rows of its kind: {[(r['action'], r['resource_type']) for r in rows]}"
        return
    if any(row["organization_id"] != write.user.organization.id for row in rows):
        yield f"{write} was audited in another organisation"
    changes = fitting[0]["changes"]
    if kind not in TABLE_OF or what not in ("create", "update"):
        return
    for name, value in (write.body or {}).items():
        if name in changes and not _same_text(changes[name][1], value):
            yield f"{write} asked for {name} = {value!r}, the audit row says {changes[name]}"
        elif name not in changes and (what == "create" or name == "description"):
            yield f"{write} asked for {name} = {value!r}, the audit row does not name it"


def _same_text(told: Any, asked: Any) -> bool:
    return bool(told == asked or str(told) == str(asked) or (isinstance(asked, list) and sorted(asked) == told))


def check_keys(evidence: Evidence) -> Iterator[str]:
    """The kept answer of every key is the one that its client got."""
    kept = {(row["user_id"], row["key"]): row for row in evidence.tables["idempotency_keys"]}
    for write in evidence.model.writes.values():
        # Before log-in keys stand elsewhere; answers with a secret are kept encrypted, refusals before the work not.
        if write.kind in ("organization.register", "webhook.create") or write.status in (None, 400, 401, 403):
            continue
        row = kept.get((write.user.id, f"k{write.id}"))
        if row is None:
            if write.status != 422:
                yield f"{write} got {write.status}, which was not kept"
        elif (row["status"], bytes(row["body"])) != (write.status, write.raw):
            kept_answer = f"{row['status']} {bytes(row['body'])[:300]!r}"
            yield f"{write} got {write.status} {write.raw[:300]!r}, kept is {kept_answer}"


def check_created(evidence: Evidence) -> Iterator[str]:
    """Each acknowledged creation is a row, and no two are the same one."""
    known: dict[tuple[str, int], Write] = {}
    for write in evidence.model.writes.values():
        kind, _, what = write.kind.partition(".")
        if not write.is_done or kind not in TABLE_OF or what not in ("create", "convert"):
            continue
        made = ("deal" if what == "convert" else kind, write.content["id"])
        if made in known:
            yield f"{write} and {known[made]} were both answered with {made}"
        known[made] = write
    gone = {row["resource_id"] for row in evidence.tables["audit_logs"] if row["action"] == "delete"}
    for (kind, row_id), write in known.items():
        if row_id not in evidence.rows(TABLE_OF[kind]) and not (kind in DELETED_FOR_GOOD and row_id in gone):
            yield f"{write} was acknowledged as {kind} {row_id}, which is not there"


def check_contents(evidence: Evidence) -> Iterator[str]:
    """Every row is what its audit rows say, one after the other: nothing lost in between, nothing half done."""
    audits = _audits_of_rows(evidence)
    for kind in ("property", "lead", "deal", "portfolio", "transaction", "campaign"):
        rows = evidence.rows(TABLE_OF[kind])
        for (type_, row_id), entries in audits.items():
            if type_ == kind:
                yield from _check_row(kind, row_id, rows.get(row_id), entries)
        for row_id in rows.keys() - {row_id for type_, row_id in audits if type_ == kind}:
            yield f"{kind} {row_id} is there without an audit row"


def _check_row(kind: str, row_id: int, row: Row | None, entries: list[Row]) -> Iterator[str]:
    made = [entry["action"] for entry in entries].count("create")
    if entries[0]["action"] != "create" or made != 1:
        yield f"{kind} {row_id} was created {made} times"
    problems: list[str] = []
    state, is_deleted = _fold(entries, problems)
    yield from (f"{kind} {row_id}{problem}" for problem in problems)
    if row is None:
        if not (kind in DELETED_FOR_GOOD and is_deleted):
            yield f"{kind} {row_id} is audited and not there"
        return
    if kind not in DELETED_FOR_GOOD and (row["deleted_at"] is not None) != is_deleted:
        yield f"{kind} {row_id} is {'not ' * (row['deleted_at'] is None)}deleted, its audit rows say otherwise"
    # The rest of a campaign changes by being sent.
    names = {"name", "subject", "content", "description"} if kind == "campaign" else row.keys() & state.keys()
    for name in names & state.keys():
        if not _same(row[name], state[name]):
            yield f"{kind} {row_id}.{name} is {row[name]!r}, its last audit row says {state[name]!r}"


def _fold(entries: list[Row], problems: list[str]) -> tuple[Row, bool]:
    """What audit rows make of a row, one after the other, and whether it is deleted then."""
    state: Row = {}
    is_deleted = False
    for entry in entries:
        if entry["action"] in ("delete", "restore"):
            if is_deleted == (entry["action"] == "delete"):
                problems.append(f" got {entry['action']} twice in a row ({entry['request_id']})")
            is_deleted = entry["action"] == "delete"
        for name, (before, after) in entry["changes"].items() if entry["action"] != "delete" else ():
            # Properties go into a portfolio and out of it one by one, and a campaign counts by itself.
            if name in state and state[name] != before and name != "property_id" and not name.endswith("_count"):
                problems.append(f".{name} was {state[name]!r}, but {entry['request_id']} found {before!r}")
            state[name] = after
    return state, is_deleted


def check_conditions(evidence: Evidence) -> Iterator[str]:
    """Of the writers with one tag at most one won, and what it changed was what it had read."""
    audits = _audits_of_writes(evidence)
    won: dict[tuple[str, str], Write] = {}
    for write in evidence.model.writes.values():
        if write.if_match is None or not write.is_done:
            continue
        key = (write.path, write.if_match)
        if key in won:
            yield f"{write} and {won[key]} both won with the tag {write.if_match}"
        won[key] = write
        for rows in audits.get(write.id, {}).values():
            changes = next((r["changes"] for r in rows if r["resource_type"] == write.kind.partition(".")[0]), {})
            for name in ("notes", "description"):
                if name in changes and changes[name][0] != write.seen:
                    yield f"{write} had read {write.seen!r} and has overwritten {changes[name][0]!r}"


# --- events ------------------------------------------------------------------------------------------------------


def check_event_numbers(evidence: Evidence) -> Iterator[str]:
    """Events are numbered without a gap, as the counter says, in the order of their commits."""
    events = _by(evidence.tables["events"], "organization_id")
    for counter in evidence.tables["event_counters"]:
        rows = events[counter["organization_id"]]
        numbers = [row["id"] for row in rows]
        if numbers != list(range(1, counter["last_id"] + 1)):
            missing = sorted(set(range(1, counter["last_id"] + 1)) - set(numbers))
            whose = f"organisation {counter['organization_id']}"
            yield f"{whose}: {counter['last_id']} events are counted, missing {missing[:9]}"
        for before, after in itertools.pairwise(rows):
            times = before["committed_at"], after["committed_at"]
            if None not in times and times[0] > times[1]:
                yield f"event {after['id']} of {after['organization_id']} was committed before {before['id']}"


def check_events(evidence: Evidence) -> Iterator[str]:
    """The events of each resource are those that its audit rows call for, in the same order, with the same content."""
    happened: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for event in evidence.tables["events"]:
        if event["type"] != "campaign.progress":
            happened[event["resource_type"], event["resource_id"]].append(event)
    audits = _audits_of_rows(evidence)
    for kind in ("property", "lead", "deal"):
        ids = {row_id for type_, row_id in (*audits, *happened) if type_ == kind}
        for row_id in ids:
            yield from _compare(kind, row_id, audits[kind, row_id], happened[kind, row_id])
    for kind, what, type_ in (("send", "campaign", "campaign.started"),):
        sent = sum(row["action"] == kind and row["resource_type"] == what for row in evidence.tables["audit_logs"])
        resumed = sum(_is_resumption(row) for row in evidence.tables["audit_logs"])
        told = sum(event["type"] == type_ for event in evidence.tables["events"])
        if told != sent + resumed:
            yield f"{sent} campaigns were sent and {resumed} resumed, and {told} events tell of it"
    completed = Counter(e["resource_id"] for e in evidence.tables["events"] if e["type"] == "campaign.completed")
    for campaign in evidence.tables["campaigns"]:
        if completed[campaign["id"]] != (campaign["status"] == "completed"):
            yield f"campaign {campaign['id']} is {campaign['status']}: {completed[campaign['id']]} events of completion"


def _is_resumption(row: Row) -> bool:
    status = row["changes"].get("status", [None, None])
    return bool(row["resource_type"] == "campaign" and row["action"] == "update" and status[1] == "in_progress")


def _compare(kind: str, row_id: int, entries: list[Row], events: list[Row]) -> Iterator[str]:
    calls = list(_calls(kind, entries))
    wanted, found = [type_ for _, types in calls for type_ in types], [event["type"] for event in events]
    if wanted != found:
        yield f"{kind} {row_id}: the audit rows call for {wanted}, the events are {found}"
        return
    state: Row = {}
    following = iter(events)
    for entry, types in calls:
        state |= {name: after for name, (_, after) in entry["changes"].items()}
        for type_, event in zip(types, following, strict=False):
            yield from _compare_event(f"{kind} {row_id}", state, entry, type_, event)


def _compare_event(name: str, state: Row, entry: Row, type_: str, event: Row) -> Iterator[str]:
    if event["organization_id"] != entry["organization_id"] or event["actor_id"] != entry["user_id"]:
        yield f"event {event['id']} of {event['organization_id']} is not that of {entry['request_id']}"
    if type_.endswith((".created", ".updated", ".converted")):
        told = event["data"]
        for field_ in state.keys() & told.keys():
            if told[field_] != state[field_]:
                change = f"{entry['request_id']}, {name}.{field_} is {state[field_]!r}"
                yield f"after {change}, event {event['id']} says {told[field_]!r}"


def _calls(kind: str, entries: list[Row]) -> Iterator[tuple[Row, list[str]]]:
    """The audit rows, each with the events that it calls for.

    Nobody is told what a deal does to the status of a deleted property, which nobody sees.
    """
    is_deleted = False
    for entry in entries:
        if entry["action"] in ("delete", "restore"):
            is_deleted = entry["action"] == "delete"
        is_unseen = is_deleted and (kind, entry["action"]) == ("property", "update")
        yield entry, [] if is_unseen and entry["changes"].keys() == {"status"} else _types_of(kind, entry)


def _types_of(kind: str, entry: Row) -> list[str]:
    """The events that an audit row calls for."""
    action, changes = entry["action"], entry["changes"]
    if action == "delete":
        return [f"{kind}.deleted"]
    types = [f"{kind}.created" if action == "create" else f"{kind}.updated"]
    if action == "convert":
        types.append("lead.converted")
    if kind == "lead" and changes.get("assigned_to", [None, None])[1] is not None:
        types.append("lead.assigned")
    if kind == "deal" and action == "update" and "stage" in changes:
        types.append("deal.stage_changed")
    return types


def check_streams(evidence: Evidence) -> Iterator[str]:
    """Each reader got every event that it may see, once, in order, as it stands in the table."""
    events = _by(evidence.tables["events"], "organization_id")
    for follower in evidence.followers:
        who, start = follower.user.email, follower.start
        if start is None:
            yield f"{who} never got a stream"
            continue
        wanted = [e for e in events[follower.user.organization.id] if e["id"] > start and follower.sees(e)]
        got = [message.id for message in follower.got]
        if got != [event["id"] for event in wanted]:
            yield f"{who} from {start}: {_difference([event['id'] for event in wanted], got)}"
            continue
        for event, message in zip(wanted, follower.got, strict=True):
            if (message.type, message.data["data"]) != (event["type"], event["data"]):
                yield f"{who} got {message.data} for event {event['id']}, which is {event['type']} {event['data']}"


def _difference(wanted: list[int], got: list[int]) -> str:
    twice = [number for number, times in Counter(got).items() if times > 1]
    missing, strange = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
    is_ordered = got == sorted(got)
    return (
        f"{len(wanted)} events, got {len(got)}; missing {missing[:9]}, foreign {strange[:9]}, twice {twice[:9]},"
        f" {'in order' if is_ordered else 'out of order'}"
    )


# --- nothing half done -------------------------------------------------------------------------------------------


def check_deals(evidence: Evidence) -> Iterator[str]:
    """Every deal has the whole history of its stages, and holds its property or does not, as its stage says."""
    history = _by(evidence.tables["deal_stage_changes"], "deal_id")
    audits = _audits_of_rows(evidence)
    holders: Counter[int] = Counter()
    properties = evidence.rows("properties")
    for deal in evidence.tables["deals"]:
        changes = sorted(history[deal["id"]], key=lambda row: row["id"])
        stages = [None, *(row["new_stage"] for row in changes)]
        if [row["old_stage"] for row in changes] != stages[:-1] or stages[-1] != deal["stage"]:
            steps = [(row["old_stage"], row["new_stage"]) for row in changes]
            yield f"deal {deal['id']} is in {deal['stage']}, its history is {steps}"
        moved = sum("stage" in e["changes"] for e in audits["deal", deal["id"]] if e["action"] == "update")
        if len(changes) != 1 + moved:
            yield f"deal {deal['id']} has {len(changes)} entries of history, its audit rows {moved} changes of stage"
        if (deal["closed_at"] is not None) != (deal["stage"] in CLOSED):
            yield f"deal {deal['id']} is in {deal['stage']}, closed at {deal['closed_at']}"
        holds = deal["stage"] in HOLDING and deal["deleted_at"] is None
        property_ = properties[deal["property_id"]]
        if holds:
            holders[deal["property_id"]] += 1
            if (property_["status"], property_["status_deal_id"]) != ("under_contract", deal["id"]):
                yield f"deal {deal['id']} holds property {property_['id']}, which is {property_['status']}"
    for property_ in properties.values():
        if (property_["status"] == "under_contract") != (holders[property_["id"]] == 1):
            yield f"property {property_['id']} is {property_['status']}, held by {holders[property_['id']]} deals"


def check_conversions(evidence: Evidence) -> Iterator[str]:
    """A lead was converted together with the making of its deal, and once."""
    deals = evidence.rows("deals")
    made = {row["request_id"]: row["resource_id"] for row in evidence.tables["audit_logs"]
            if (row["action"], row["resource_type"]) == ("create", "deal")}  # fmt: skip
    converted = [row for row in evidence.tables["audit_logs"] if row["action"] == "convert"]
    for row in converted:
        deal = deals.get(made.get(row["request_id"], 0))
        if deal is None or deal["lead_id"] != row["resource_id"]:
            yield f"lead {row['resource_id']} was converted by {row['request_id']} without a deal"
    told = Counter(row["resource_id"] for row in converted)
    for deal in deals.values():
        if deal["lead_id"] is not None and not told[deal["lead_id"]]:
            yield f"deal {deal['id']} has lead {deal['lead_id']}, which was never converted"


def check_sums(evidence: Evidence) -> Iterator[str]:
    """The transactions of each deal add up to what was acknowledged; portfolios hold what was put into them."""
    amounts: dict[int, Decimal] = {}
    unsure = {write.path for write in evidence.model.writes.values() if write.status is None}
    for write in evidence.model.writes.values():
        if write.kind in ("transaction.create", "transaction.update") and write.is_done:
            amounts[write.content["id"]] = Decimal(write.content["amount"])
        elif write.kind == "transaction.delete" and write.is_done:
            amounts.pop(int(write.path.rpartition("/")[2]), None)
    booked = evidence.rows("transactions")
    for transaction_id in booked.keys() | amounts.keys():
        row, amount = booked.get(transaction_id), amounts.get(transaction_id)
        stored = row["amount"] if row else None
        # One that nobody was told of may be what its client gave up to wait for.
        is_unsure = row is not None and amount is None and f"/deals/{row['deal_id']}/transactions" in unsure
        is_unsure = is_unsure or any(path.endswith(f"/transactions/{transaction_id}") for path in unsure)
        if stored != amount and not is_unsure:
            yield f"transaction {transaction_id} is {stored}, was {amount}"
    audits = _audits_of_rows(evidence)
    members = _by(evidence.tables["portfolio_properties"], "portfolio_id")
    for portfolio in evidence.tables["portfolios"]:
        held: set[int] = set()
        for entry in audits["portfolio", portfolio["id"]]:
            held |= set(entry["changes"].get("property_ids", [None, []])[1])
            gone, come = entry["changes"].get("property_id", [None, None])
            held = (held - {gone}) | ({come} if come else set())
        stored = {row["property_id"] for row in members[portfolio["id"]]}
        if stored != held:
            yield f"portfolio {portfolio['id']} holds {sorted(stored)}, its audit rows say {sorted(held)}"
    yield from _check_values(evidence, members)


def _check_values(evidence: Evidence, members: dict[int, list[Row]]) -> Iterator[str]:
    """A portfolio is worth what the properties in it are, but for the deleted ones."""
    for portfolio_id, told in evidence.portfolios.items():
        held = [evidence.rows("properties")[row["property_id"]] for row in members[portfolio_id]]
        prices = [row["price"] or Decimal(0) for row in held if row["deleted_at"] is None]
        if (told["property_count"], Decimal(told["total_value"])) != (len(prices), sum(prices)):
            numbers = f"{told['property_count']} properties for {told['total_value']}"
            yield f"portfolio {portfolio_id} tells of {numbers}, it has {len(prices)} for {sum(prices)}"


def check_organisations(evidence: Evidence) -> Iterator[str]:
    """Nothing refers to another organisation, nor names one in what it holds."""
    yield from evidence.strays
    for table in ("events", "webhook_logs"):
        for row in evidence.tables[table]:
            if row["data"].get("organization_id", row["organization_id"]) != row["organization_id"]:
                yield f"{table} {row['id']} of {row['organization_id']} holds a row of {row['data']['organization_id']}"
    for job in evidence.tables["procrastinate_jobs"]:
        organization_id, lead_id = job["args"].get("organization_id"), job["args"].get("lead_id")
        lead = evidence.rows("leads").get(lead_id)
        if lead is not None and lead["organization_id"] != organization_id:
            yield f"job {job['id']} of {organization_id} is about lead {lead_id} of {lead['organization_id']}"


# --- campaigns ---------------------------------------------------------------------------------------------------


def check_campaigns(evidence: Evidence) -> Iterator[str]:
    """Every recipient has come to an end, the counters are those of the rows, and nobody got a mail twice."""
    mails: Counter[tuple[str, str]] = Counter()
    for mail in evidence.mails:
        subject = BytesHeaderParser().parsebytes(mail.raw)["Subject"] or ""
        if mark := re.search(r"\bc[0-9]+-[0-9]+\b", subject):
            mails[mark[0], mail.recipient.lower()] += 1
    recipients = _by(evidence.tables["campaign_recipients"], "campaign_id")
    known = set()
    for campaign in evidence.tables["campaigns"]:
        mark = (re.search(r"c[0-9]+-[0-9]+", campaign["subject"] or "") or [""])[0]
        rows = recipients[campaign["id"]]
        yield from _check_counters(campaign, rows)
        for row in rows:
            address = (row["address"] or "").lower()
            known.add((mark, address))
            arrived = mails[mark, address]
            if arrived > 1:
                yield f"campaign {campaign['id']}: {address} got {arrived} mails ({row['status']})"
            if (row["status"] == "sent" and not arrived) or (arrived and row["status"] not in ("sent", "unknown")):
                yield f"campaign {campaign['id']}: {address} is {row['status']} and got {arrived} mails"
    for (mark, address), _ in mails.items() - dict.fromkeys(known).items():
        if (mark, address) not in known:
            yield f"campaign {mark} went to {address}, who is no recipient"


def _check_counters(campaign: Row, rows: list[Row]) -> Iterator[str]:
    counted = Counter(row["status"] for row in rows)
    for name, states in COUNTERS.items():
        if campaign[name] != sum(counted[state] for state in states):
            yield f"campaign {campaign['id']}.{name} is {campaign[name]}, the rows are {dict(counted)}"
    if campaign["total_recipients"] != len(rows):
        yield f"campaign {campaign['id']} counts {campaign['total_recipients']} recipients and has {len(rows)}"
    if campaign["status"] not in ("draft", "completed", "cancelled", "paused"):
        yield f"campaign {campaign['id']} is {campaign['status']} when all is quiet"
    left = {"paused": {"pending"}, "cancelled": {"cancelled"}}.get(campaign["status"], set())
    if not set(counted) <= ENDS | left:
        yield f"campaign {campaign['id']} is {campaign['status']}, its recipients are {dict(counted)}"


def check_reactions(evidence: Evidence) -> Iterator[str]:
    """What somebody did with a mail, and was answered, is kept, and counted; who unsubscribed is suppressed."""
    subjects = {row["id"]: row["subject"] for row in evidence.tables["campaigns"]}
    rows = {}
    for row in evidence.tables["campaign_recipients"]:
        mark = re.search(r"\bc[0-9]+-[0-9]+\b", subjects[row["campaign_id"]])
        rows[mark and mark[0], (row["address"] or "").lower()] = row
    emails = [row for row in evidence.tables["suppressions"] if row["email"]]
    suppressed = {(row["organization_id"], row["email"].lower()) for row in emails}
    for reaction in evidence.model.reactions:
        row = rows.get((reaction.mark, reaction.address))
        if row is None or row[TIME_OF[reaction.kind]] is None:
            yield f"{reaction} was answered and is not kept"
        elif reaction.kind == "u" and (row["organization_id"], reaction.address) not in suppressed:
            yield f"{reaction} was answered, and the address is not suppressed"
    recipients = _by(evidence.tables["campaign_recipients"], "campaign_id")
    for campaign in evidence.tables["campaigns"]:
        for name in TIME_OF.values():
            counted = sum(row[name] is not None for row in recipients[campaign["id"]])
            counter = name.replace("_at", "_count")
            if campaign[counter] != counted:
                yield f"campaign {campaign['id']}.{counter} is {campaign[counter]}, {counted} rows say so"


# --- jobs and webhooks -------------------------------------------------------------------------------------------


def check_jobs(evidence: Evidence) -> Iterator[str]:
    """Every job that a committed change calls for is there once and has been done; its runs say so."""
    jobs = [job for job in evidence.tables["procrastinate_jobs"] if job["args"].get("organization_id")]
    runs = _by(evidence.tables["job_runs"], "job_id")
    for job in jobs:
        name = f"job {job['id']} ({job['task_name']} {job['args']})"
        if job["status"] != "succeeded":
            yield f"{name} is {job['status']} after {job['attempts']} attempts: {[r['error'] for r in runs[job['id']]]}"
        elif not any(run["finished_at"] and run["error"] is None for run in runs[job["id"]]):
            yield f"{name} has succeeded, its runs are {[(r['attempt'], r['error']) for r in runs[job['id']]]}"
        for run in runs[job["id"]]:
            if run["finished_at"] is None or run["organization_id"] != job["args"]["organization_id"]:
                yield f"{name}: attempt {run['attempt']} of organisation {run['organization_id']} never ended"
            if _is_ours(run["error"]):
                yield f"{name}: attempt {run['attempt']} failed by no fault: {run['error']}"
    for job_id in runs.keys() - {job["id"] for job in jobs}:
        yield f"job {job_id} has runs and is not there"
    yield from _check_deferred(evidence, jobs)


def _is_ours(error: str | None) -> bool:
    """Whether a job failed by an error that no fault explains: not that Postgres was away or cut a connection."""
    inside = re.search(r"An internal error occurred \((\w+)\)", error or "")
    if inside is None:
        return False
    kind = getattr(asyncpg, inside[1], None) or getattr(builtins, inside[1], None)
    return kind is None or not issubclass(kind, LOST)


def _check_deferred(evidence: Evidence, jobs: list[Row]) -> Iterator[str]:
    queued = Counter((job["task_name"], *_ids(job["args"])) for job in jobs)
    wanted = Counter(_wanted_jobs(evidence))
    names = {key[0] for key in wanted}
    for key in wanted.keys() | {key for key in queued if key[0] in names}:
        if wanted[key] != queued[key]:
            yield f"{key} was deferred {wanted[key]} times, the queue has {queued[key]}"
    sending = {job["args"]["campaign_id"] for job in jobs if job["task_name"] == "send_campaign"}
    for row in evidence.tables["audit_logs"]:
        if (row["action"], row["resource_type"]) == ("send", "campaign") and row["resource_id"] not in sending:
            yield f"campaign {row['resource_id']} was sent ({row['request_id']}) without a job"


def _wanted_jobs(evidence: Evidence) -> Iterator[tuple[Any, ...]]:
    """The jobs that committed changes call for: their tasks and their ids."""
    for event in evidence.tables["events"]:
        if event["type"] == "lead.assigned":
            ids = {"user_id": event["data"]["assigned_to"], "lead_id": event["data"]["lead_id"]}
            yield "send_lead_assigned_email", *_ids(ids)
    for change_id, user_id in _assignees(evidence).items():
        if user_id is not None:
            yield "send_deal_stage_changed_email", *_ids({"user_id": user_id, "change_id": change_id})
    for write in evidence.model.writes.values():
        if write.kind in ("organization.register", "user.create"):
            yield "send_welcome_email", *_ids({"user_id": write.content.get("user", write.content)["id"]})


def _ids(args: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted((name, value) for name, value in args.items() if name != "organization_id")


def _assignees(evidence: Evidence) -> dict[int, int | None]:
    """Who was the assignee of a deal at each change of its stage."""
    found: dict[int, int | None] = {}
    history = _by(evidence.tables["deal_stage_changes"], "deal_id")
    for (kind, deal_id), entries in _audits_of_rows(evidence).items():
        if kind != "deal":
            continue
        changes = iter(sorted(history[deal_id], key=lambda row: row["id"])[1:])
        assignee = None
        for entry in entries:
            assignee = entry["changes"].get("assigned_to", [None, assignee])[1]
            if entry["action"] == "update" and "stage" in entry["changes"]:
                change = next(changes, None)
                if change is not None:
                    found[change["id"]] = assignee
    return found


def check_webhooks(evidence: Evidence) -> Iterator[str]:
    """Each event went to each endpoint that asks for it, signed, until it was taken or had failed for good."""
    arrived: dict[int, list[tuple[dict[str, str], bytes]]] = defaultdict(list)
    for _, headers, body in evidence.hooks:
        arrived[int(headers["webhook-id"])].append((headers, body))
    logs = _by(evidence.tables["webhook_logs"], "webhook_endpoint_id")
    for endpoint in evidence.tables["webhook_endpoints"]:
        organization, secret, types = evidence.model.webhooks[endpoint["id"]]
        wanted = Counter(
            (event["type"], json.dumps(event["data"], sort_keys=True))
            for event in evidence.tables["events"]
            if event["organization_id"] == organization.id
            and event["type"] in types
            and event["created_at"] > endpoint["created_at"]
        )
        rows = logs[endpoint["id"]]
        made = Counter((row["event_type"], json.dumps(row["data"], sort_keys=True)) for row in rows)
        if made != wanted:
            missing, strange = (wanted - made).most_common(2), (made - wanted).most_common(2)
            numbers = f"{sum(wanted.values())} events, {len(rows)} deliveries"
            yield f"webhook {endpoint['id']}: {numbers}; missing {missing}, strange {strange}"
        for row in rows:
            yield from _check_delivery(row, secret, arrived[row["id"]])


def _check_delivery(row: Row, secret: str, arrived: list[tuple[dict[str, str], bytes]]) -> Iterator[str]:
    name = f"delivery {row['id']} of webhook {row['webhook_endpoint_id']}"
    if row["status"] not in ("delivered", "failed"):
        yield f"{name} is {row['status']} when all is quiet"
    if row["status"] == "delivered" and not arrived:
        yield f"{name} is delivered and never arrived"
    if not row["attempts"] >= 1 or row["attempts"] < len(arrived):
        yield f"{name} arrived {len(arrived)} times in {row['attempts']} attempts"
    for headers, body in arrived:
        if not is_signed(secret, headers, body):
            yield f"{name} arrived with a wrong signature"
        content = json.loads(body)
        if (content["type"], content["data"]) != (row["event_type"], row["data"]):
            yield f"{name} arrived with another content: {content}"


# --- sessions ----------------------------------------------------------------------------------------------------


def check_sessions(evidence: Evidence) -> Iterator[str]:
    """Each session is in the generation that its client knows, and alive unless its client has ended it."""
    sessions = evidence.rows("sessions")
    for family in evidence.model.families:
        row = sessions.get(family.session_id)
        if row is None:
            yield f"session {family.session_id} was opened and is not there"
        elif family.is_ended and row["revoked_at"] is None:
            yield f"session {family.session_id} was logged out and is alive"
        elif family.is_sure and not family.is_ended and row["revoked_at"] is not None:
            yield f"session {family.session_id} was never logged out and is revoked"
        elif family.is_sure and row["generation"] != family.rotations:
            yield f"session {family.session_id} was rotated {family.rotations} times, is in {row['generation']}"


CHECKS: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "run": check_run,
    "answers": check_answers,
    "writes": check_writes,
    "keys": check_keys,
    "rows": check_created,
    "contents": check_contents,
    "conditions": check_conditions,
    "numbers": check_event_numbers,
    "events": check_events,
    "streams": check_streams,
    "deals": check_deals,
    "conversions": check_conversions,
    "sums": check_sums,
    "organisations": check_organisations,
    "campaigns": check_campaigns,
    "reactions": check_reactions,
    "jobs": check_jobs,
    "webhooks": check_webhooks,
    "sessions": check_sessions,
}


def check_all(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong, with what was seen while the load ran."""
    found = list(evidence.model.violations)
    for name, check in CHECKS.items():
        found += [Violation(name, text) for text in check(evidence)]
    return found
