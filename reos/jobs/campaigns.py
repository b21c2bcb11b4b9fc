"""Sending campaigns: one job sends for a few seconds and then defers the next, so that no job is long.

Recipients are taken in batches: that they are `sending` is committed before anything is handed over, and what became of
them after it. What a job had in its hands when its worker died is `unknown` then, and is not sent again. So each
recipient gets a message at most once, whatever happens.

A campaign's `job_number` says which job goes on. Whoever pauses, resumes or cancels it raises the number, and a job
that finds another than its own lets go of what it has not handed over, and ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import asyncpg
from loguru import logger

from reos.db import Connection, Record, tenant_transaction
from reos.errors import EmailServiceError, OverloadedError, SMSServiceError
from reos.integrations.email import MailWriter
from reos.integrations.merging import compile_mail, compile_text, one_line, render_text
from reos.integrations.sms import plain_number, quiet_until, zone_of
from reos.integrations.tracking import Addresses
from reos.jobs.campaign_exports import store_export
from reos.jobs.connector import LOST
from reos.jobs.mails import MAIL_RETRY
from reos.jobs.task import Job, task
from reos.metrics import CAMPAIGN_MESSAGES
from reos.queries import campaign_sending as queries
from reos.queries import campaigns, events, stored_files
from reos.queries.campaign_sending import Outcome, OutcomeKind
from reos.schemas.merge_fields import MergeFieldError

JOB_SECONDS = 5.0  # that a job takes recipients; then it defers the next
JOB_TIMEOUT = 300.0  # seconds; a campaign that is exported is exported by one job
BATCH = 20  # recipients that are taken at a time
AT_HAND = 8  # recipients that may wait for a connection while the next batch is taken
CONNECTIONS = 4  # messages that are handed over at a time
GATHER_SECONDS = 0.02  # between two transactions that keep what became of recipients
PROGRESS_SECONDS = 1.0  # between two events of progress
STOP_SECONDS = 5.0  # that messages on their way have when the worker stops
LOOK_AGAIN_SECONDS = 5.0  # while another job still has recipients in its hands

# Seconds before a recipient that was put off is tried again: greylisting takes minutes, a full mailbox a day.
RECIPIENT_WAITS = (60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0)
AWAY_SECONDS = 10.0  # before the next job, when the server went away after it had taken something
# A campaign pauses itself when so many have failed, and more than this part of those tried since it was started.
MIN_FAILURES, MAX_FAILED_PART = 10, 0.5
DATABASE_WAITS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between the tries to keep what became of recipients

ServiceError = EmailServiceError | SMSServiceError


@task(queries.TASK, retry=MAIL_RETRY, timeout=JOB_TIMEOUT)
async def send_campaign(job: Job, campaign_id: int, number: int) -> None:
    """Send a campaign for a while, and see to it that it goes on. `number` is the campaign's `job_number`."""
    campaign = await _begin(job, campaign_id, number)
    if campaign is None:
        return
    if campaign["campaign_type"] in ("direct_mail", "social_media"):
        await _export(job, campaign_id, number, campaign)
        return
    try:
        channel = _channel(job, campaign)
    except (MergeFieldError, _NotReadyError) as error:
        await _pause(job, campaign_id, number, f"The campaign cannot be sent: {error}.")
        return
    sending = _Sending(job, campaign_id, number, campaign, channel)
    await sending.run()
    if sending.away is None:
        return
    if sending.has_sent:
        # It did something, so this is no failed attempt of many in a row.
        async with tenant_transaction(job.database, job.organization_id) as conn:
            await queries.go_on(conn, campaign_id, number, datetime.now(UTC) + timedelta(seconds=AWAY_SECONDS))
    elif job.attempt >= MAIL_RETRY.attempts:
        await _pause(job, campaign_id, number, f"{sending.away.message} It was tried {job.attempt} times.")
    else:
        raise sending.away


async def _export(job: Job, campaign_id: int, number: int, campaign: Record) -> None:
    """Complete a campaign that others send: its recipients and texts become a file, and nobody counts as sent."""
    file_id = await store_export(job, campaign_id, campaign)
    async with tenant_transaction(job.database, job.organization_id) as conn:
        now = await queries.lock(conn, campaign_id)
        if now is None or not _is_running(now, number):
            return  # It was held up, or completed by another, meanwhile; the file, which nobody uses, is swept.
        await stored_files.use(conn, [file_id])
        await events.record_changes(conn, [], await completed(conn, campaign_id, file_id))


class _NotReadyError(Exception):
    """The campaign lacks something; the message says what."""


async def _begin(job: Job, campaign_id: int, number: int) -> Record | None:
    """What to send; None when there is nothing to do for this job."""
    async with tenant_transaction(job.database, job.organization_id) as conn:
        campaign = await queries.lock(conn, campaign_id)
        if campaign is None:
            return None
        # Also for a job that was overtaken: nobody else looks after what it had in its hands.
        await queries.give_up_taken(conn, campaign_id, number)
        if campaign["job_number"] != number or campaign["is_deleted"]:
            logger.info("Campaign {} goes on with another job, or not at all", campaign_id)
            return None
        if job.attempt > 1 and await queries.has_got_on(conn, campaign_id, number):
            # Its worker died, but not for nothing: the next job has all its attempts again.
            await queries.go_on(conn, campaign_id, number)
            return None
        published: list[events.Event] = []
        if campaign["status"] == "scheduled":
            started, following = await campaigns.start(conn, campaign_id, "in_progress", campaign["scheduled_at"])
            published.append(_event("campaign.started", started))
            await queries.defer(conn, campaign_id, following)
        await events.record_changes(conn, [], published)
        return campaign if campaign["status"] == "in_progress" else None


def _is_running(campaign: Record, number: int) -> bool:
    """Whether the campaign, which is locked, is still sent, and by the job of this number."""
    is_sent = campaign["status"] == "in_progress" and not campaign["is_deleted"]
    return bool(is_sent and campaign["job_number"] == number)


def _event(type: str, campaign: Any) -> events.Event:
    return events.Event(type=type, resource_type="campaign", resource_id=campaign["id"], data=campaign)


async def _pause(job: Job, campaign_id: int, number: int, reason: str) -> None:
    async with tenant_transaction(job.database, job.organization_id) as conn:
        campaign = await queries.lock(conn, campaign_id)
        if campaign is not None and _is_running(campaign, number):
            await events.record_changes(conn, [], await _paused(conn, campaign_id, reason))


async def _paused(conn: Connection, campaign_id: int, reason: str) -> list[events.Event]:
    """Pause the campaign, which is locked; its events."""
    paused = await campaigns.stop(conn, campaign_id, "paused", reason)
    logger.warning("Campaign {} has paused itself: {}", campaign_id, reason)
    told = f"Campaign {campaign_id} has paused itself: {reason}"
    return [
        _event("campaign.paused", paused),
        events.notification(paused["created_by"], told, "campaign_paused"),
    ]


async def completed(conn: Connection, campaign_id: int, export_file_id: int | None = None) -> list[events.Event]:
    """Complete the campaign, which is locked; its events."""
    after = await campaigns.complete(conn, campaign_id, export_file_id)
    logger.info("Campaign {} is completed", campaign_id)
    return [
        _event("campaign.completed", after),
        events.notification(after["created_by"], f"Campaign {campaign_id} is completed.", "campaign_completed"),
    ]


# --- the two ways out --------------------------------------------------------------------------------------------


class _Channel(Protocol):
    """How one recipient is written to."""

    def message_id(self, recipient: Record) -> str | None:
        """What the message will be called, where that is for us to say."""
        ...

    def due(self, recipient: Record, now: datetime) -> datetime | None:
        """When the recipient may be written to; None: now."""
        ...

    async def send(self, recipient: Record) -> str | None:
        """Hand the message over; what the provider calls it. Raises EmailServiceError or SMSServiceError."""
        ...


def _channel(job: Job, campaign: Record) -> _Channel:
    return _Mails(job, campaign) if campaign["campaign_type"] == "email" else _Texts(job, campaign)


class _Mails:
    """Email, with what RFC 8058 wants for unsubscribing by one click."""

    def __init__(self, job: Job, campaign: Record):
        if not campaign["subject"]:
            raise _NotReadyError("it has no subject")
        self.job = job
        self.organization_name = campaign["organization_name"]
        self.template = compile_mail(campaign["subject"], campaign["content"])
        self.writer = MailWriter(job.settings, one_line(campaign["organization_name"]))

    def _addresses(self, recipient: Record) -> Addresses:
        return Addresses(self.job.settings, self.job.signer, self.job.organization_id, recipient["id"])

    def message_id(self, recipient: Record) -> str | None:
        return self._addresses(recipient).message_id

    def due(self, recipient: Record, now: datetime) -> datetime | None:
        return None

    async def send(self, recipient: Record) -> str | None:
        addresses = self._addresses(recipient)
        unsubscribe_url = addresses.unsubscribe_url
        values = {**recipient, "organization_name": self.organization_name, "unsubscribe_url": unsubscribe_url}
        mail = self.template.render(values, track=addresses.click_url, pixel_url=addresses.pixel_url)
        message = self.writer.write(
            to=recipient["address"],
            subject=mail.subject,
            text=mail.text,
            html=mail.html,
            message_id=addresses.message_id,
            headers={
                "List-Unsubscribe": f"<{unsubscribe_url}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
        )
        await self.job.mailer.send(message)
        return None


class _Texts:
    """Text messages, by day only."""

    def __init__(self, job: Job, campaign: Record):
        self.job = job
        self.organization_name = campaign["organization_name"]
        self.time_zone = campaign["time_zone"]
        self.template = compile_text(campaign["content"])

    def message_id(self, recipient: Record) -> str | None:
        return None

    def due(self, recipient: Record, now: datetime) -> datetime | None:
        return quiet_until(now, zone_of(recipient["time_zone"], self.time_zone))

    async def send(self, recipient: Record) -> str | None:
        addresses = Addresses(self.job.settings, self.job.signer, self.job.organization_id, recipient["id"])
        values = {
            **recipient,
            "organization_name": self.organization_name,
            "unsubscribe_url": addresses.unsubscribe_url,
        }
        text = render_text(self.template, values)
        return await self.job.texter.send(plain_number(recipient["address"]), text, addresses.message_id)


# --- the work of a job -------------------------------------------------------------------------------------------


class _Sending:
    """One job's share of a campaign: one takes recipients, several hand over, one keeps what became of them."""

    def __init__(self, job: Job, campaign_id: int, number: int, campaign: Record, channel: _Channel):
        self.job = job
        self.campaign_id = campaign_id
        self.number = number
        self.created_by = campaign["created_by"]
        self.channel = channel
        self.away: ServiceError | None = None  # why nothing can be handed over at present
        self.error: Exception | None = None  # what should not have happened
        self.has_sent = False
        self.ready: asyncio.Queue[tuple[Record, float] | None] = asyncio.Queue(AT_HAND)
        self.stop = asyncio.Event()  # nothing more is handed over
        self.outcomes: list[Outcome] = []
        self.news = asyncio.Event()  # there are outcomes, or there will be no more
        self.is_over = False
        self.progress_at = asyncio.get_running_loop().time() + PROGRESS_SECONDS

    async def run(self) -> None:
        """Send for a while, and then complete the campaign or defer the job that goes on."""
        recorder = asyncio.create_task(self._record_all())
        senders = [asyncio.create_task(self._send_all()) for _ in range(CONNECTIONS)]
        try:
            try:
                await self._feed()
                await asyncio.wait(senders)
            except BaseException:
                # Told to stop, or without a database.
                self.stop.set()
                await self._wind_up(senders)
                raise
        finally:
            self.is_over = True
            self.news.set()
            await recorder
        if self.error is not None:
            raise self.error
        if self.away is None:
            await self._conclude()

    async def _wind_up(self, senders: Sequence[asyncio.Task[None]]) -> None:
        """Let what is on its way arrive, for a while; what has not begun is let go of."""
        while not self.ready.empty():
            if (entry := self.ready.get_nowait()) is not None:
                self._note(entry[0], "released")
        for _ in senders:
            self.ready.put_nowait(None)
        _, late = await asyncio.wait(senders, timeout=STOP_SECONDS)
        for sender in late:
            sender.cancel()
        await asyncio.wait(senders)

    # Taking

    async def _feed(self) -> None:
        """Take recipients and hand them to the senders until the time is up or nobody is due."""
        loop = asyncio.get_running_loop()
        until = loop.time() + JOB_SECONDS
        left: list[Record] = []  # taken, but not in the senders' hands
        try:
            while not self.stop.is_set() and loop.time() < until:
                taken, delay, gap = await self._take()
                if not taken:
                    break
                left = taken
                starts = loop.time() + delay
                for place in range(len(taken)):
                    await self.ready.put((taken[place], starts + place * gap))
                    left = taken[place + 1 :]
        except BaseException:
            for recipient in left:
                self._note(recipient, "released")
            raise
        for _ in range(CONNECTIONS):
            await self.ready.put(None)

    async def _take(self) -> tuple[list[Record], float, float]:
        """The next batch, in how many seconds its first message may go out, and the seconds between two."""
        per_second = self.job.settings.campaign_messages_per_second
        limit = min(BATCH, per_second) or BATCH
        async with tenant_transaction(self.job.database, self.job.organization_id) as conn:
            campaign = await queries.lock(conn, self.campaign_id)
            if campaign is None or not self._is_mine(campaign):
                self.stop.set()
                return [], 0, 0
            if not campaign["is_organization_active"]:
                self.stop.set()
                told = await _paused(conn, self.campaign_id, "The organisation is not active.")
                await events.record_changes(conn, [], told)
                return [], 0, 0
            found: list[Record] = []
            while not found and (due := await queries.list_due(conn, self.campaign_id, limit, self.created_by)):
                found = await self._sort_out(conn, due)
            if not found:
                return [], 0, 0
            delay = await queries.reserve_pace(conn, len(found), per_second) if per_second else 0.0
            await queries.take(conn, {row["id"]: self.channel.message_id(row) for row in found}, self.number)
        return found, delay, 1 / per_second if per_second else 0.0

    def _is_mine(self, campaign: Record) -> bool:
        return _is_running(campaign, self.number)

    async def _sort_out(self, conn: Connection, due: Sequence[Record]) -> list[Record]:
        """Those that are written to now. Who must not be any more is marked, who sleeps is postponed."""
        reasons: dict[int, str] = {}
        times: dict[int, datetime] = {}
        now = datetime.now(UTC)
        for row in due:
            if row["is_gone"]:
                reasons[row["id"]] = "The lead was deleted."
            elif row["is_suppressed"]:
                reasons[row["id"]] = "The address is suppressed."
            elif (at := self.channel.due(row, now)) is not None:
                times[row["id"]] = at
        if reasons:
            await queries.suppress(conn, reasons)
        if times:
            await queries.postpone(conn, times)
        return [row for row in due if row["id"] not in reasons and row["id"] not in times]

    # Handing over

    async def _send_all(self) -> None:
        while (entry := await self.ready.get()) is not None:
            recipient, starts = entry
            if await self._may_send(starts):
                await self._send(recipient)
            else:
                self._note(recipient, "released")

    async def _may_send(self, starts: float) -> bool:
        """Wait for the recipient's turn; False when nothing more is handed over."""
        wait = starts - asyncio.get_running_loop().time()
        if wait > 0 and not self.stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), wait)
        return not self.stop.is_set()

    async def _send(self, recipient: Record) -> None:
        """Hand one message over, and note what became of it."""
        try:
            name = await self.channel.send(recipient)
        except (EmailServiceError, SMSServiceError) as error:
            self._note_failure(recipient, error)
        except ValueError as error:
            # An address or a text of which no message can be made.
            logger.info("Recipient {} cannot be written to: {}", recipient["id"], error)
            self._note(recipient, "failed", "No message can be sent to this address.")
        except BaseException as error:
            self._note(recipient, "unknown", "The service was stopped while the message was handed over.")
            if not isinstance(error, Exception):
                raise
            self.error = error
            self.stop.set()
        else:
            self.has_sent = True
            self._note(recipient, "sent", message_id=name)

    def _note_failure(self, recipient: Record, error: ServiceError) -> None:
        if error.unknown:
            self._note(recipient, "unknown", error.message)
        elif not error.concerns_recipient:
            self.away = error
            self.stop.set()
            self._note(recipient, "released", error.message)
        elif error.temporary and recipient["attempts"] < len(RECIPIENT_WAITS):
            self._note(recipient, "retry", error.message, wait=RECIPIENT_WAITS[recipient["attempts"]])
        else:
            self._note(recipient, "failed", error.message)

    def _note(
        self,
        recipient: Record,
        outcome: OutcomeKind,
        error: str | None = None,
        *,
        wait: float | None = None,
        message_id: str | None = None,
    ) -> None:
        CAMPAIGN_MESSAGES.labels(outcome).inc()
        # The attempts are those before this one.
        self.outcomes.append(
            Outcome(
                id=recipient["id"],
                attempt=recipient["attempts"] + 1,
                outcome=outcome,
                error=error,
                wait=wait,
                message_id=message_id,
            )
        )
        self.news.set()

    # Keeping what became of them

    async def _record_all(self) -> None:
        """Keep outcomes, all that there are at a time: few when they come slowly, many when they come fast."""
        while not self.is_over or self.outcomes:
            await self.news.wait()
            self.news.clear()
            if self.outcomes:
                outcomes, self.outcomes = self.outcomes, []
                try:
                    await self._record(outcomes)
                except BaseException:
                    # Nothing more may be handed over that would not be kept either.
                    self.stop.set()
                    raise
                if not self.is_over:
                    await asyncio.sleep(GATHER_SECONDS)

    async def _record(self, outcomes: list[Outcome]) -> None:
        for wait in (*DATABASE_WAITS, None):
            try:
                await self._record_once(outcomes)
                return
            except (*LOST, asyncpg.TransactionRollbackError, OverloadedError) as error:
                if wait is None:
                    raise
                logger.warning("What became of {} recipients is not kept yet: {}", len(outcomes), error)
            await asyncio.sleep(wait)

    async def _record_once(self, outcomes: list[Outcome]) -> None:
        async with tenant_transaction(self.job.database, self.job.organization_id) as conn:
            campaign = await queries.lock(conn, self.campaign_id)
            if campaign is None:
                self.stop.set()
                return
            state = await queries.record(conn, self.campaign_id, self.number, outcomes, campaign["status"])
            published: list[events.Event] = []
            if not self._is_mine(campaign):
                self.stop.set()
            elif _fails_too_often(state):
                self.stop.set()
                last = next((entry["error"] for entry in reversed(outcomes) if entry["outcome"] == "failed"), None)
                reason = f"{state['failed_since_start']} of {state['tried_since_start']} messages failed. {last or ''}"
                published = await _paused(conn, self.campaign_id, reason.strip())
            else:
                published = self._progress(state)
            await events.record_changes(conn, [], published)

    def _progress(self, state: Record) -> list[events.Event]:
        """The event of progress, now and then."""
        now = asyncio.get_running_loop().time()
        if now < self.progress_at:
            return []
        self.progress_at = now + PROGRESS_SECONDS
        data = {
            "campaign_id": self.campaign_id,
            "sent": state["sent_count"],
            "failed": state["failed_count"],
            "total": state["total_recipients"],
        }
        return [
            events.Event(type="campaign.progress", resource_type="campaign", resource_id=self.campaign_id, data=data)
        ]

    # The end

    async def _conclude(self) -> None:
        """Complete the campaign when nobody is left; otherwise defer the job that goes on."""
        async with tenant_transaction(self.job.database, self.job.organization_id) as conn:
            campaign = await queries.lock(conn, self.campaign_id)
            if campaign is None or not self._is_mine(campaign):
                return
            rest = await queries.get_rest(conn, self.campaign_id)
            if rest["pending"] or rest["sending"]:
                # A job that was overtaken may still have some in its hands.
                later = datetime.now(UTC) + timedelta(seconds=LOOK_AGAIN_SECONDS)
                await queries.go_on(conn, self.campaign_id, self.number, rest["next_at"] or later)
                return
            await events.record_changes(conn, [], await completed(conn, self.campaign_id))


def _fails_too_often(state: Record) -> bool:
    failed, tried = state["failed_since_start"], state["tried_since_start"]
    return bool(failed >= MIN_FAILURES and failed > tried * MAX_FAILED_PART)
