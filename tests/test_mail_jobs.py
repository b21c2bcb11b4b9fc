"""The jobs that send mails about accounts, with a real mail server: what goes out, when, and when not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from conftest import TestDatabase
from job_queue import Queue, add_organization, job_settings, open_queue, running_worker
from mail_sink import MailSink

from reos.db import plain_transaction
from reos.integrations.email import list_outbox, outbox_directory
from reos.jobs import mails as mail_jobs
from reos.queries import jobs
from reos.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.auth]


class Mails(Queue):
    """A queue, the one user of its organisation, and the mail server that the worker uses."""

    user: asyncpg.Record
    sink: MailSink

    async def load_user(self) -> None:
        user = await self.conn.fetchrow("select * from users where organization_id = $1", self.organization_id)
        assert user is not None
        self.user = user

    async def add_lookup(self, kind: str, email: str) -> int:
        """What a request leaves when it does not want to know whose address it is."""
        async with plain_transaction(self.database) as conn:
            return int(
                await conn.fetchval(
                    "select add_address_lookup($1, $2, $2, '192.0.2.1', 'Firefox', 'request-1')", kind, email
                )
            )

    async def defer_lookup(self, task: str, kind: str, email: str) -> tuple[int, int]:
        """A look-up and its job, without a tenant, as log-in and reset defer it."""
        lookup_id = await self.add_lookup(kind, email)
        async with plain_transaction(self.database) as conn:
            job_id = await jobs.defer(conn, task, {"lookup_id": lookup_id})
        assert job_id is not None
        return job_id, lookup_id

    async def tokens(self) -> list[asyncpg.Record]:
        return await self.conn.fetch("select * from one_time_tokens order by id")

    async def lookups(self) -> int:
        return int(await self.conn.fetchval("select count(*) from pending_address_lookups"))

    async def run_now(self, job_id: int) -> None:
        """Let a waiting job's time come, and wake the workers."""
        await self.conn.execute("update procrastinate_jobs set scheduled_at = now() where id = $1", job_id)
        await self.conn.execute("""select pg_notify('procrastinate_any_queue_v1', '{"type": "job_inserted"}')""")


@pytest.fixture
async def sink() -> AsyncIterator[MailSink]:
    async with MailSink() as sink:
        yield sink


@pytest.fixture
def settings(fresh_database: TestDatabase, tmp_path: Path, sink: MailSink) -> Settings:
    return job_settings(
        fresh_database,
        tmp_path,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_from_email="crm@example.com",
        smtp_from_name="Häuser & Höfe",
        public_url="https://crm.example.com",
    )


@pytest.fixture
async def mails(fresh_database: TestDatabase, settings: Settings, sink: MailSink) -> AsyncIterator[Mails]:
    async with open_queue(fresh_database, settings) as queue:
        mails = Mails(queue.conn, queue.service, queue.database, queue.organization_id, settings)
        mails.sink = sink
        await mails.load_user()
        yield mails


def link_of(text: str) -> str:
    (link,) = re.findall(r"https?://\S+", text)
    return str(link)


async def test_a_verification_link_goes_to_the_users_address(mails: Mails) -> None:
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_verification_email", ids={"user_id": mails.user["id"]})
        (mail,) = await mails.sink.received(1)
        (token,) = await mails.tokens()
        assert (token["purpose"], token["user_id"]) == ("verify_email", mails.user["id"])
        assert (mail.sender, mail.recipient) == ("crm@example.com", mails.user["email"])
        assert mail.message["Auto-Submitted"] == "auto-generated"
        assert mail.message["Subject"] == "Confirm your email address"
        assert str(mail.message["From"].addresses[0]) == "Häuser & Höfe <crm@example.com>"
        assert "Hello Ann," in mail.text
        assert re.fullmatch(r"https://crm\.example\.com/verify-email\?token=[\w.~%-]{20,}", link_of(mail.text))
        html = mail.message.get_body(("html",))
        assert html is not None
        assert link_of(mail.text) in html.get_content()
        assert (await mails.until(job_id, "succeeded"))["attempts"] == 1


async def test_no_connection_waits_in_a_transaction_for_the_mail_server(mails: Mails) -> None:
    mails.sink.gate = asyncio.Event()
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_verification_email", ids={"user_id": mails.user["id"]})
        await mails.sink.received(1)
        assert len(await mails.tokens()) == 1, "committed before the mail goes out"
        states: set[str] = {"idle in transaction"}
        async with asyncio.timeout(10):
            # The worker does other things as well, and each is over in a moment.
            while "idle in transaction" in states:
                rows = await mails.service.fetch(
                    "select state from pg_stat_activity where datname = current_database() and usename = current_user"
                )
                states = {row["state"] for row in rows}
        assert "idle" in states, "the worker's connections are seen"
        assert (await mails.job(job_id))["status"] == "doing"
        mails.sink.gate.set()
        await mails.until(job_id, "succeeded")


async def test_a_welcome_has_a_link_without_a_token(mails: Mails) -> None:
    async with running_worker(mails.settings):
        await mails.defer("send_welcome_email", ids={"user_id": mails.user["id"]})
        (mail,) = await mails.sink.received(1)
        assert mail.message["Subject"] == "Welcome to Häuser & Höfe"
        assert link_of(mail.text) == "https://crm.example.com"
        assert await mails.tokens() == []


async def test_a_user_is_told_of_a_new_password(mails: Mails) -> None:
    async with running_worker(mails.settings):
        await mails.defer("send_password_changed_email", ids={"user_id": mails.user["id"]})
        (mail,) = await mails.sink.received(1)
        assert (mail.recipient, mail.message["Subject"]) == (mails.user["email"], "Your password was changed")
        assert link_of(mail.text) == "https://crm.example.com"
        await mails.conn.execute("update users set is_active = false")
        again = await mails.defer("send_password_changed_email", ids={"user_id": mails.user["id"]})
        await mails.until(again, "succeeded")
        assert len(await mails.sink.received(1)) == 1


async def test_the_former_addresses_are_told_of_a_new_one(mails: Mails) -> None:
    audited = (
        "insert into audit_logs (organization_id, action, resource_type, resource_id, changes, created_at)"
        " values ($1, 'update', 'user', $2, $3::text::jsonb, now() - make_interval(secs => $4))"
    )
    for old, new, age in (("first@x.test", "a@x.test", 2 * 86400), ("a@x.test", "b@x.test", 5)):
        changes = f'{{"email": ["{old}", "{new}"]}}'
        await mails.conn.execute(audited, mails.organization_id, mails.user["id"], changes, age)
    last = f'{{"email": ["b@x.test", "{mails.user["email"]}"]}}'
    await mails.conn.execute(audited, mails.organization_id, mails.user["id"], last, 0)
    async with running_worker(mails.settings):
        await mails.defer("send_address_changed_email", ids={"user_id": mails.user["id"]})
        told = await mails.sink.received(2)
        assert sorted(mail.recipient for mail in told) == ["a@x.test", "b@x.test"]
        assert {mail.message["Subject"] for mail in told} == {"Your email address was changed"}
        # Where the account has gone is nothing for whoever reads the old mailbox.
        assert not any(mails.user["email"] in mail.text for mail in told)


async def test_links_lead_to_a_front_end_that_the_settings_name(mails: Mails) -> None:
    ends = {
        "link_verify_email": "https://app.example.com/#/verify?lang=en",
        "link_reset_password": "https://app.example.com/reset",
    }
    async with running_worker(mails.settings.model_copy(update=ends)):
        await mails.defer("send_verification_email", ids={"user_id": mails.user["id"]})
        await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
        links = {link_of(mail.text).partition("token=")[0] for mail in await mails.sink.received(2)}
        assert links == {"https://app.example.com/#/verify?lang=en&", "https://app.example.com/reset?"}


@pytest.mark.parametrize(
    "change",
    [
        "update users set is_active = false",
        "update users set is_verified = true",
        "update organizations set is_active = false",
    ],
)
async def test_who_is_not_active_or_verified_already_gets_no_verification_link(mails: Mails, change: str) -> None:
    await mails.conn.execute(change)
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_verification_email", ids={"user_id": mails.user["id"]})
        await mails.until(job_id, "succeeded")
    assert await mails.tokens() == []
    assert mails.sink.mails == []


async def test_a_user_of_another_organisation_gets_nothing(mails: Mails) -> None:
    other = await add_organization(mails.database)
    async with running_worker(mails.settings):
        for task in ("send_verification_email", "send_welcome_email"):
            job_id = await mails.defer(task, other, ids={"user_id": mails.user["id"]})
            await mails.until(job_id, "succeeded")
    assert mails.sink.mails == []
    assert await mails.tokens() == []


async def test_a_mail_that_was_put_off_is_sent_later_with_a_new_token(mails: Mails) -> None:
    mails.sink.answers["DATA"] = "451 later"
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_verification_email", ids={"user_id": mails.user["id"]})
        job = await mails.until_attempts(job_id, 1)
        assert 5 < (job["scheduled_at"] - datetime.now(UTC)).total_seconds() <= 11
        (run,) = await mails.runs(job_id)
        assert run["error"] == "The mail server put off the mail (451)."
        mails.sink.answers.clear()
        await mails.run_now(job_id)
        await mails.sink.received(1)
        assert (await mails.until(job_id, "succeeded"))["attempts"] == 2
        first, second = await mails.tokens()
        assert first["token_hash"] != second["token_hash"]


async def test_a_mail_server_that_is_away_does_not_lose_a_mail(mails: Mails) -> None:
    port = mails.sink.port
    await mails.sink.__aexit__()
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_welcome_email", ids={"user_id": mails.user["id"]})
        for attempt in (1, 2, 3):
            await mails.until_attempts(job_id, attempt)
            await mails.run_now(job_id)
        await mails.until_attempts(job_id, 4)
        async with MailSink(port=port) as back:
            await mails.run_now(job_id)
            await back.received(1)
            await mails.until(job_id, "succeeded")
    assert {run["error"] for run in (await mails.runs(job_id))[:4]} == {"The mail server could not be reached."}


async def test_a_refused_mail_is_given_up(mails: Mails) -> None:
    mails.sink.answers["RCPT"] = "550 no such user"
    async with running_worker(mails.settings):
        job_id = await mails.defer("send_welcome_email", ids={"user_id": mails.user["id"]})
        assert (await mails.until(job_id, "failed"))["attempts"] == 1
    assert mails.sink.mails == []


async def test_without_a_mail_server_mails_lie_in_the_outbox(mails: Mails) -> None:
    async with running_worker(mails.settings.model_copy(update={"smtp_host": ""})):
        await mails.until(await mails.defer("send_welcome_email", ids={"user_id": mails.user["id"]}), "succeeded")
    (mail,) = list_outbox(outbox_directory(mails.settings))
    assert mail.recipient == mails.user["email"]


# Look-ups


async def test_a_reset_link_goes_to_a_known_address(mails: Mails) -> None:
    async with running_worker(mails.settings):
        job_id, _ = await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
        (mail,) = await mails.sink.received(1)
        assert mail.recipient == mails.user["email"]
        assert link_of(mail.text).startswith("https://crm.example.com/reset-password?token=")
        await mails.until(job_id, "succeeded")
        (token,) = await mails.tokens()
        assert (token["purpose"], token["user_id"]) == ("password_reset", mails.user["id"])
        assert await mails.lookups() == 0


async def test_an_unknown_address_and_a_disabled_user_get_no_reset_link(mails: Mails) -> None:
    async with running_worker(mails.settings):
        job_id, _ = await mails.defer_lookup("send_password_reset_email", "password_reset", "nobody@example.org")
        await mails.until(job_id, "succeeded")
        await mails.conn.execute("update users set is_active = false")
        job_id, _ = await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
        await mails.until(job_id, "succeeded")
    assert mails.sink.mails == []
    assert await mails.tokens() == []
    assert await mails.lookups() == 0


async def test_nobodys_mailbox_is_filled_with_reset_links(mails: Mails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_jobs, "MAX_RESET_LINKS", 2)
    async with running_worker(mails.settings):
        for _ in range(3):
            job_id, _ = await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
            await mails.until(job_id, "succeeded")
        assert len(mails.sink.mails) == 2
        await mails.conn.execute("update one_time_tokens set created_at = now() - interval '61 minutes'")
        await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
        await mails.sink.received(3)


async def test_a_look_up_that_is_finished_does_nothing(mails: Mails) -> None:
    async with running_worker(mails.settings):
        for task in ("send_password_reset_email", "record_failed_login"):
            async with plain_transaction(mails.database) as conn:
                job_id = await jobs.defer(conn, task, {"lookup_id": 2**40})
            assert job_id is not None
            await mails.until(job_id, "succeeded")
    assert mails.sink.mails == []


async def test_a_reset_mail_that_was_put_off_keeps_its_look_up(mails: Mails) -> None:
    mails.sink.answers["RCPT"] = "450 greylisted"
    async with running_worker(mails.settings):
        job_id, _ = await mails.defer_lookup("send_password_reset_email", "password_reset", mails.user["email"])
        await mails.until_attempts(job_id, 1)
        assert await mails.lookups() == 1
        mails.sink.answers.clear()
        await mails.run_now(job_id)
        await mails.sink.received(1)
        await mails.until(job_id, "succeeded")
        assert await mails.lookups() == 0


async def test_a_failed_log_in_is_audited_for_a_known_address_only(mails: Mails) -> None:
    async with running_worker(mails.settings):
        for email in (mails.user["email"], "nobody@example.org"):
            job_id, _ = await mails.defer_lookup("record_failed_login", "login_failed", email)
            await mails.until(job_id, "succeeded")
    (row,) = await mails.conn.fetch("select * from audit_logs")
    expected = {
        "organization_id": mails.organization_id,
        "action": "login_failed",
        "resource_type": "user",
        "resource_id": mails.user["id"],
        "user_id": None,
        "changes": {},
        "ip_address": "192.0.2.1",
        "user_agent": "Firefox",
        "request_id": "request-1",
    }
    assert {name: row[name] for name in expected} == expected
    assert await mails.lookups() == 0
