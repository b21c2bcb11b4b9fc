"""Registration, log-in, sessions, passwords and the user's own account, through HTTP with a real worker and outbox."""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import until
from job_queue import running_worker

from reos.auth import login as login_module
from reos.auth.login import address_key
from reos.auth.tokens import issue_access_token
from reos.handlers import auth as auth_handlers
from reos.integrations.email import OutboxMail, list_outbox, outbox_directory, read_outbox

pytestmark = [pytest.mark.integration, pytest.mark.auth]

PASSWORD = "correct Horse 7 battery"
OTHER_PASSWORD = "another Horse 8 battery"


class Person:
    """Somebody with an address and a password, registered through the API."""

    def __init__(self, api: Api, answer: dict[str, Any], email: str):
        self.api = api
        self.email = email
        self.answer = answer
        self.refresh_token: str = answer["refresh_token"]
        self.client = Client(api.http, {"Authorization": f"Bearer {answer['access_token']}"})

    @property
    def user(self) -> dict[str, Any]:
        user: dict[str, Any] = self.answer["user"]
        return user

    async def log_in(self, password: str = PASSWORD) -> Person:
        """The same person in another session."""
        answer = await self.api.anonymous.post(
            "/auth/login", json={"email": self.email, "password": password}, status=200
        )
        return Person(self.api, answer, self.email)

    async def try_password(self, password: str = "wrong") -> httpx.Response:
        return await try_login(self.api, self.email, password)


async def try_login(api: Api, email: str, password: str = "wrong") -> httpx.Response:
    return await api.anonymous.request("POST", "/auth/login", json={"email": email, "password": password})


def registration(**fields: Any) -> dict[str, Any]:
    return {
        "email": f"{uuid4().hex}@Example.com",
        "password": PASSWORD,
        "first_name": "Ann",
        "last_name": "Lee",
    } | fields


async def sign_up(api: Api, **fields: Any) -> Person:
    body = registration(**fields)
    return Person(api, await api.anonymous.post("/auth/register", json=body), body["email"])


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Wrong tries are answered at once, except where a test is about the waits."""
    if "real_waits" not in request.keywords:
        monkeypatch.setattr(login_module, "waits", lambda attempts: (0.0,) * attempts)


# --- registration ----------------------------------------------------------------------------------------------


async def test_registration_makes_an_organisation_and_its_admin(api: Api) -> None:
    body = registration(organization_name="Lee & Söhne", phone="+1 512 555 0100")
    answer = await api.anonymous.post("/auth/register", json=body)
    assert answer["token_type"] == "bearer"
    assert answer["expires_in"] == 30 * 60
    user = answer["user"]
    assert user["email"] == body["email"]
    assert (user["is_active"], user["is_verified"], user["is_locked"]) == (True, False, False)
    me = await Client(api.http, {"Authorization": f"Bearer {answer['access_token']}"}).get("/auth/me")
    assert {name: me[name] for name in user} == user
    assert me["organization"]["name"] == "Lee & Söhne"
    assert me["organization"]["slug"].startswith("lee-sohne")
    assert [role["name"] for role in me["roles"]] == ["Admin"]
    assert "organization:update" in me["permissions"]
    assert me["preferences"] == {"email_notifications": True, "daily_report": False}
    names = await api.fetch("select name from roles where organization_id = $1 order by id", user["organization_id"])
    assert [row["name"] for row in names] == ["Admin", "Manager", "Agent"]


async def test_an_organisation_without_a_name_is_named_after_the_person(api: Api) -> None:
    person = await sign_up(api, first_name="Ann", last_name="Lee")
    assert (await person.client.get("/auth/me"))["organization"]["name"] == "Ann Lee"
    longest = await sign_up(api, first_name="A" * 100, last_name="B" * 100)
    assert len((await longest.client.get("/auth/me"))["organization"]["name"]) == 200


async def test_a_taken_address_is_409_whatever_its_case(api: Api) -> None:
    person = await sign_up(api)
    for email in (person.email, person.email.upper()):
        error = await api.anonymous.error("POST", "/auth/register", json=registration(email=email), status=409)
        assert error["type"] == "ResourceAlreadyExistsError"
    assert await api.value("select count(*) from organizations where name = 'Nobody'") == 0


async def test_an_address_is_one_however_its_letters_are_composed(api: Api) -> None:
    """Some keyboards and programs write an e and an accent where others write one letter."""
    person = await sign_up(api, email=f"jos\u00e9.{uuid4().hex}@b\u00fccher.de")
    decomposed = unicodedata.normalize("NFD", person.email)
    assert decomposed != person.email
    assert (await try_login(api, decomposed, PASSWORD)).status_code == 200
    await api.anonymous.error("POST", "/auth/register", json=registration(email=decomposed), status=409)
    assert address_key(api.context.signer, decomposed) == address_key(api.context.signer, person.email)


async def test_a_name_that_others_have_with_a_number_is_free_for_registration(api: Api) -> None:
    """Where a slug is taken a number is put behind it, which may be taken too."""
    name = f"Acme {uuid4().hex}"
    slug = (await (await sign_up(api, organization_name=name)).client.get("/organization"))["slug"]
    others = [await api.register() for _ in range(12)]
    newest = await api.value("select max(id) from organizations")
    for number, other in enumerate(others, newest):
        await other.put("/organization", json={"slug": f"{slug}-{number}"})
    again = [await sign_up(api, organization_name=name) for _ in range(3)]
    slugs = {(await person.client.get("/organization"))["slug"] for person in again}
    assert len(slugs) == 3
    assert all(re.fullmatch(rf"{slug}-\d+", each) for each in slugs)


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("Ab1!", "password_too_short"),
        ("lowercase1!", "password_no_uppercase"),
        ("UPPERCASE1!", "password_no_lowercase"),
        ("NoDigits!!", "password_no_digit"),
        ("NoSpecial11", "password_no_special"),
        ("Aa1!" + "x" * 125, "password_too_long"),
        ("P@ssw0rd", "password_too_common"),
        ("Password1!", "password_too_common"),
        ("Welcome1!", "password_too_common"),
        ("with\x00NUL1!", "password_characters"),
    ],
)
async def test_weak_passwords_are_refused(api: Api, password: str, code: str) -> None:
    refused = await api.anonymous.fields_refused("POST", "/auth/register", json=registration(password=password))
    assert refused == {"password": code}


async def test_passwords_are_never_trimmed(api: Api) -> None:
    person = await sign_up(api, password=f" {PASSWORD} ")
    assert (await person.try_password(PASSWORD)).status_code == 401
    assert (await person.try_password(f" {PASSWORD} ")).status_code == 200


async def test_registration_is_repeatable_with_a_key_and_its_answer_is_kept_encrypted(api: Api) -> None:
    body, headers = registration(), {"Idempotency-Key": uuid4().hex}
    first = await api.anonymous.request("POST", "/auth/register", json=body, headers=headers)
    second = await api.anonymous.request("POST", "/auth/register", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.content == first.content
    kept = await api.value("select body from public_idempotency_keys where key = $1", headers["Idempotency-Key"])
    assert first.json()["refresh_token"].encode() not in kept


# --- log-in ----------------------------------------------------------------------------------------------------


async def test_a_log_in_is_noted(api: Api) -> None:
    person = await sign_up(api)
    again = await person.log_in()
    assert again.user["id"] == person.user["id"]
    assert again.user["last_login"] is not None
    audits = await api.fetch("select action from audit_logs where user_id = $1 order by id", person.user["id"])
    assert [row["action"] for row in audits] == ["create", "create", "login"]


async def test_known_and_unknown_addresses_are_refused_alike(api: Api) -> None:
    person = await sign_up(api)
    known, unknown = await person.try_password(), await try_login(api, f"{uuid4().hex}@example.com")
    answers = []
    for response in (known, unknown):
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        content = response.json()
        content["error"].pop("request_id")
        answers.append(content)
    assert answers[0] == answers[1]
    assert answers[0]["error"]["type"] == "InvalidCredentialsError"


async def test_the_fifth_wrong_try_locks_also_for_the_right_password(api: Api) -> None:
    person = await sign_up(api)
    unknown = f"{uuid4().hex}@example.com"
    for email in (person.email, unknown):
        assert [(await try_login(api, email)).status_code for _ in range(5)] == [401] * 5
        response = await try_login(api, email, PASSWORD)
        assert response.status_code == 403
        assert response.json()["error"]["type"] == "AccountLockedError"
        assert 0 < int(response.headers["Retry-After"]) <= 15 * 60 + 1
    # Whoever is logged in already goes on, and sees it.
    assert (await person.client.get("/auth/me"))["is_locked"] is True


async def test_a_lock_runs_out_and_the_count_with_it(api: Api) -> None:
    person = await sign_up(api)
    for _ in range(5):
        await person.try_password()
    moved = "update login_attempts set {0} = {0} - interval '16 minutes'"
    for column in ("last_failure_at", "next_try_at", "locked_until"):
        await api.value(moved.format(column))
    assert (await person.try_password()).status_code == 401
    assert (await person.log_in()).user["is_locked"] is False


async def test_a_success_forgets_the_failures(api: Api) -> None:
    person = await sign_up(api)
    for _ in range(3):
        for _ in range(4):
            assert (await person.try_password()).status_code == 401
        await person.log_in()


@pytest.mark.real_waits
async def test_wrong_tries_are_answered_late_and_meanwhile_others_get_429(api: Api) -> None:
    person = await sign_up(api)
    assert (await person.try_password()).status_code == 401
    began = time.monotonic()
    second = asyncio.create_task(person.try_password())

    async def is_counted() -> bool:
        return await api.value("select max(failures) from login_attempts where next_try_at > now()") == 2

    await until(is_counted)
    # No connection is held while an answer is.
    assert api.database.busy == 0
    meanwhile = await person.try_password(PASSWORD)
    assert meanwhile.status_code == 429
    assert meanwhile.json()["error"]["type"] == "RateLimitExceededError"
    assert int(meanwhile.headers["Retry-After"]) >= 1
    assert (await second).status_code == 401
    assert time.monotonic() - began >= 1
    await person.log_in()


async def test_a_hundred_parallel_guesses_are_one(database: TestDatabase, api: Api, tmp_path: Path) -> None:
    person = await sign_up(api)
    async with served_api(database, tmp_path) as other:
        tries = [try_login(where, person.email, f"guess {n}") for n in range(50) for where in (api, other)]
        statuses = [response.status_code for response in await asyncio.gather(*tries)]
    assert set(statuses) <= {401, 429}
    failures = await api.value(
        "select max(failures) from login_attempts where last_failure_at > now() - interval '1 min'"
    )
    assert statuses.count(401) == failures < 10


async def test_the_user_is_locked_before_the_count(api: Api) -> None:
    """A success, and an Admin who ends a lock, take them in this order: the other one would be a circle."""
    person = await sign_up(api)
    for _ in range(4):
        assert (await person.try_password()).status_code == 401
    key = address_key(api.context.signer, person.email)
    count = "select from login_attempts where address_key = $1 for update nowait"
    async with user_held(api, person) as conn:
        fifth = asyncio.create_task(person.try_password())
        await until(lambda: is_waited_for(api, conn))
        await conn.execute(count, key)
        assert not fifth.done()
    assert (await fifth).status_code == 401
    assert (await person.try_password(PASSWORD)).status_code == 403


@asynccontextmanager
async def user_held(api: Api, person: Person) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection inside a transaction that holds the user's row."""
    async with api.owner.acquire() as conn, conn.transaction():
        await conn.execute("select from users where id = $1 for no key update", person.user["id"])
        yield conn


async def is_waited_for(api: Api, conn: asyncpg.Connection) -> bool:
    """Whether a transaction waits for what this connection holds."""
    statement = "select exists (select from pg_locks where $1 = any(pg_blocking_pids(pid)))"
    return bool(await api.value(statement, conn.get_server_pid()))


async def test_a_failed_log_in_is_audited_by_a_job(api: Api) -> None:
    person = await sign_up(api)
    await person.try_password()
    await try_login(api, f"{uuid4().hex}@example.com")
    query = "select count(*) from audit_logs where organization_id = $1 and action = 'login_failed'"
    async with running_worker(api.settings):

        async def is_audited() -> bool:
            return bool(await api.value(query, person.user["organization_id"]))

        await until(is_audited)


# --- tokens ----------------------------------------------------------------------------------------------------


async def refresh(api: Api, token: str) -> httpx.Response:
    return await api.anonymous.request("POST", "/auth/refresh", json={"refresh_token": token})


async def test_a_refresh_token_rotates(api: Api) -> None:
    person = await sign_up(api)
    response = await refresh(api, person.refresh_token)
    assert response.status_code == 200
    tokens = response.json()
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert tokens["refresh_token"] != person.refresh_token
    client = Client(api.http, {"Authorization": f"Bearer {tokens['access_token']}"})
    assert (await client.get("/auth/me"))["id"] == person.user["id"]
    stored = await api.value("select refresh_hash from sessions where user_id = $1", person.user["id"])
    assert tokens["refresh_token"].encode() not in stored


async def test_twenty_parallel_refreshes_leave_one_live_family(api: Api) -> None:
    person = await sign_up(api)
    responses = await asyncio.gather(*(refresh(api, person.refresh_token) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["refresh_token"] for response in responses}) == 1
    live = await api.value("select count(*) from sessions where user_id = $1 and revoked_at is null", person.user["id"])
    assert live == 1


async def test_a_session_has_an_end_that_no_refresh_moves(api: Api) -> None:
    person = await sign_up(api)
    left = "select extract(epoch from expires_at - now()) / 86400 from sessions where user_id = $1"
    assert 6.9 < await api.value(left, person.user["id"]) < 7.1
    moved = "update sessions set created_at = now() - interval '29 days' where user_id = $1"
    await api.value(moved, person.user["id"])
    assert (await refresh(api, person.refresh_token)).status_code == 200
    assert 0.9 < await api.value(left, person.user["id"]) < 1.1


async def test_an_older_token_ends_the_session(api: Api) -> None:
    person = await sign_up(api)
    second = (await refresh(api, person.refresh_token)).json()["refresh_token"]
    third = (await refresh(api, second)).json()
    assert (await refresh(api, person.refresh_token)).status_code == 401
    assert (await refresh(api, third["refresh_token"])).status_code == 401
    await person.client.get("/auth/me", status=401)


async def test_the_token_before_is_forgiven_for_ten_seconds_only(api: Api) -> None:
    person = await sign_up(api)
    second = (await refresh(api, person.refresh_token)).json()["refresh_token"]
    assert (await refresh(api, person.refresh_token)).json()["refresh_token"] == second
    later = "update sessions set rotated_at = rotated_at - interval '11 seconds' where user_id = $1"
    await api.value(later, person.user["id"])
    assert (await refresh(api, person.refresh_token)).status_code == 401
    assert (await refresh(api, second)).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "A" * 4096])
async def test_what_is_no_refresh_token_is_401(api: Api, token: str) -> None:
    assert (await refresh(api, token)).status_code == 401


async def test_an_expired_access_token_says_so(api: Api) -> None:
    person = await sign_up(api)
    session_id = await api.value("select id from sessions where user_id = $1", person.user["id"])
    expired = issue_access_token(
        api.settings,
        user_id=person.user["id"],
        organization_id=person.user["organization_id"],
        session_id=session_id,
        now=time.time() - 1801,
    )
    error = await Client(api.http, {"Authorization": f"Bearer {expired}"}).error("GET", "/auth/me", status=401)
    assert error["type"] == "TokenExpiredError"


async def test_log_out_ends_the_session_on_every_process_at_once(
    database: TestDatabase, api: Api, tmp_path: Path
) -> None:
    person = await sign_up(api)
    other_session = await person.log_in()
    async with served_api(database, tmp_path) as other:
        elsewhere = Client(other.http, person.client.headers)
        await elsewhere.get("/auth/me")
        await person.client.post("/auth/logout", status=204)
        await elsewhere.get("/auth/me", status=401)
    assert (await refresh(api, person.refresh_token)).status_code == 401
    await other_session.client.get("/auth/me")


async def test_of_parallel_log_outs_one_ends_the_session_and_the_others_find_it_ended(api: Api) -> None:
    admin = await api.register()
    answers = await asyncio.gather(*(admin.request("POST", "/auth/logout") for _ in range(20)))
    statuses = {answer.status_code for answer in answers}
    # Who comes when it has ended is refused, as with any other request.
    assert 204 in statuses <= {204, 401}
    assert [row["action"] for row in await api.audits(admin)].count("logout") == 1


async def test_sessions_are_listed_and_ended(api: Api) -> None:
    person = await sign_up(api)
    second = await person.log_in()
    listed = await second.client.get("/auth/sessions")
    assert [session["is_current"] for session in listed] == [True, False]
    stranger = await sign_up(api)
    await stranger.client.delete(f"/auth/sessions/{listed[1]['id']}", status=404)
    await second.client.delete(f"/auth/sessions/{listed[1]['id']}")
    await person.client.get("/auth/me", status=401)
    await second.client.delete(f"/auth/sessions/{listed[1]['id']}", status=404)
    assert len(await second.client.get("/auth/sessions")) == 1


async def test_a_lost_permission_is_403_with_the_next_request(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    await agent.get("/properties")
    await api.value("delete from user_roles where user_id = $1", agent.user_id)
    error = await agent.error("GET", "/properties", status=403)
    assert error["details"]["required_permission"] == "property:read"


async def test_a_deactivated_user_is_401_with_the_next_request(api: Api) -> None:
    person = await sign_up(api)
    await api.value("update users set is_active = false where id = $1", person.user["id"])
    await person.client.get("/auth/me", status=401)
    assert (await refresh(api, person.refresh_token)).status_code == 401
    assert (await person.try_password(PASSWORD)).status_code == 401


# --- the user's own account ------------------------------------------------------------------------------------


async def test_the_own_account_is_changed_in_part(api: Api) -> None:
    person = await sign_up(api, phone="+1 512 555 0100")
    changed = await person.client.patch("/auth/me", json={"first_name": "Bea", "preferences": {"daily_report": True}})
    assert changed["first_name"] == "Bea"
    assert changed["last_name"] == "Lee"
    assert changed["preferences"] == {"email_notifications": True, "daily_report": True}
    cleared = await person.client.put("/auth/me", json={"phone": None})
    assert cleared["phone"] is None
    assert await person.client.get("/auth/me") == cleared
    for body in ({"email": "x@example.com"}, {"first_name": None}, {"preferences": {"colour": "red"}}):
        assert await person.client.fields_refused("PUT", "/auth/me", json=body)
    audits = await api.fetch(
        "select changes from audit_logs where user_id = $1 and action = 'update' order by id", person.user["id"]
    )
    assert len(audits) == 2


async def test_two_writers_of_the_own_account_with_one_tag(api: Api) -> None:
    person = await sign_up(api)
    tag = (await person.client.request("GET", "/auth/me")).headers["ETag"]
    writes = [
        person.client.request("PUT", "/auth/me", json={"first_name": name}, headers={"If-Match": tag})
        for name in ("Bea", "Cat")
    ]
    assert sorted([response.status_code for response in await asyncio.gather(*writes)]) == [200, 412]


# --- passwords -------------------------------------------------------------------------------------------------


async def test_a_changed_password_ends_every_other_session(api: Api) -> None:
    person = await sign_up(api)
    other = await person.log_in()
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    await person.client.post("/auth/change-password", json=body, status=204)
    await other.client.get("/auth/me", status=401)
    assert (await refresh(api, other.refresh_token)).status_code == 401
    await person.client.get("/auth/me")
    assert (await person.try_password(PASSWORD)).status_code == 401
    await person.log_in(OTHER_PASSWORD)


async def test_a_password_change_needs_the_present_one_and_a_good_new_one(api: Api) -> None:
    person = await sign_up(api)
    wrong = {"current_password": "wrong", "new_password": OTHER_PASSWORD}
    error = await person.client.error("POST", "/auth/change-password", json=wrong, status=400)
    assert error["type"] == "InvalidInputError"
    weak = {"current_password": PASSWORD, "new_password": "weak"}
    assert "new_password" in await person.client.fields_refused("POST", "/auth/change-password", json=weak)
    await person.log_in()


async def test_the_present_password_is_guessed_no_better_in_a_session(api: Api) -> None:
    person = await sign_up(api)
    body = {"current_password": "wrong", "new_password": OTHER_PASSWORD}
    for _ in range(5):
        await person.client.error("POST", "/auth/change-password", json=body, status=400)
    error = await person.client.error("POST", "/auth/change-password", json=body, status=403)
    assert error["type"] == "AccountLockedError"
    right = body | {"current_password": PASSWORD}
    await person.client.error("POST", "/auth/change-password", json=right, status=403)
    assert (await person.try_password(PASSWORD)).status_code == 403


async def guessed_four_times(api: Api) -> tuple[Person, dict[str, str]]:
    """Somebody whose next wrong try locks the account, and the body of a right password change."""
    person = await sign_up(api)
    body = {"current_password": "wrong", "new_password": OTHER_PASSWORD}
    for _ in range(4):
        await person.client.error("POST", "/auth/change-password", json=body, status=400)
    return person, body | {"current_password": PASSWORD}


async def test_a_password_change_is_a_success_of_the_same_count(api: Api) -> None:
    person, right = await guessed_four_times(api)
    await person.client.post("/auth/change-password", json=right, status=204)
    # The count began anew: this is the first of five, not the one that locks.
    assert (await person.try_password()).status_code == 401
    await person.log_in(OTHER_PASSWORD)


async def test_of_guesses_at_the_same_time_the_right_one_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, right = await guessed_four_times(api)

    async def verify_and_fail_elsewhere(*arguments: Any) -> Any:
        verified = await login_module.verify_login(*arguments)
        await api.value("update login_attempts set failures = 5 where address_key = $1", verified.address_key)
        return verified

    monkeypatch.setattr(auth_handlers, "verify_login", verify_and_fail_elsewhere)
    error = await person.client.error("POST", "/auth/change-password", json=right, status=429)
    assert error["type"] == "RateLimitExceededError"
    assert (await person.try_password(OTHER_PASSWORD)).status_code in (401, 403)


async def mails_to(api: Api, address: str) -> list[OutboxMail]:
    """What the outbox holds for an address, newest first."""
    listed = await asyncio.to_thread(list_outbox, outbox_directory(api.settings))
    return [mail for mail in listed if address.lower() in mail.recipient.lower()]


async def mail_about(api: Api, address: str, subject: str) -> OutboxMail:
    """The newest mail with a subject, as soon as a worker has sent it."""
    found: list[OutboxMail] = []

    async def has_come() -> bool:
        found[:] = [mail for mail in await mails_to(api, address) if subject in mail.subject]
        return bool(found)

    await until(has_come)
    mail = await asyncio.to_thread(read_outbox, outbox_directory(api.settings), found[0].name)
    assert mail is not None
    return mail


def token_in(mail: OutboxMail) -> str:
    found = re.search(r"token=([\w-]+)", mail.text)
    assert found is not None
    return found[1]


@pytest.fixture
async def worker(api: Api) -> AsyncIterator[None]:
    """A worker that sends the mails."""
    async with running_worker(api.settings):
        yield


async def test_a_forgotten_password_is_reset_by_mail(api: Api, worker: None) -> None:
    person = await sign_up(api)
    for _ in range(5):
        await person.try_password()
    request = {"email": person.email.upper()}
    await api.anonymous.post("/auth/password-reset-request", json=request, status=204)
    await api.anonymous.post("/auth/password-reset-request", json={"email": "nobody@example.com"}, status=204)
    token = token_in(await mail_about(api, person.email, "Set a new password"))
    body = {"token": token, "new_password": "weak"}
    assert "new_password" in await api.anonymous.fields_refused("POST", "/auth/password-reset-confirm", json=body)
    body["new_password"] = OTHER_PASSWORD
    await api.anonymous.post("/auth/password-reset-confirm", json=body, status=204)
    await person.client.get("/auth/me", status=401)
    assert (await person.log_in(OTHER_PASSWORD)).user["is_locked"] is False
    error = await api.anonymous.error("POST", "/auth/password-reset-confirm", json=body, status=400)
    assert error["type"] == "InvalidInputError"
    assert await mails_to(api, "nobody@example.com") == []


async def test_a_changed_password_spends_the_reset_links(api: Api, worker: None) -> None:
    person = await sign_up(api)
    await api.anonymous.post("/auth/password-reset-request", json={"email": person.email}, status=204)
    token = token_in(await mail_about(api, person.email, "Set a new password"))
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    await person.client.post("/auth/change-password", json=change, status=204)
    body = {"token": token, "new_password": PASSWORD}
    await api.anonymous.error("POST", "/auth/password-reset-confirm", json=body, status=400)


async def test_the_user_is_locked_before_the_links(api: Api, worker: None) -> None:
    """Whoever changes a password spends the links in this order: the other one would be a circle."""
    person = await sign_up(api)
    await api.anonymous.post("/auth/password-reset-request", json={"email": person.email}, status=204)
    token = token_in(await mail_about(api, person.email, "Set a new password"))
    body = {"token": token, "new_password": OTHER_PASSWORD}
    async with user_held(api, person) as conn:
        confirming = asyncio.create_task(api.anonymous.request("POST", "/auth/password-reset-confirm", json=body))
        await until(lambda: is_waited_for(api, conn))
        await conn.execute("select from one_time_tokens where user_id = $1 for update nowait", person.user["id"])
        assert not confirming.done()
    assert (await confirming).status_code == 204
    await person.log_in(OTHER_PASSWORD)


async def test_a_reset_link_expires(api: Api, worker: None) -> None:
    person = await sign_up(api)
    await api.anonymous.post("/auth/password-reset-request", json={"email": person.email}, status=204)
    token = token_in(await mail_about(api, person.email, "Set a new password"))
    await api.value("update one_time_tokens set expires_at = now() where user_id = $1", person.user["id"])
    body = {"token": token, "new_password": OTHER_PASSWORD}
    await api.anonymous.error("POST", "/auth/password-reset-confirm", json=body, status=400)


async def test_an_address_is_verified_by_mail_once(api: Api, worker: None) -> None:
    person = await sign_up(api)
    token = token_in(await mail_about(api, person.email, "Confirm your email address"))
    await mail_about(api, person.email, "Welcome")
    await api.anonymous.post("/auth/verify-email", json={"token": token}, status=204)
    assert (await person.client.get("/auth/me"))["is_verified"] is True
    await api.anonymous.error("POST", "/auth/verify-email", json={"token": token}, status=400)
    await person.client.post("/auth/resend-verification", status=204)
    deferred = await api.value(
        "select count(*) from job_runs where organization_id = $1 and kind = 'send_verification_email'",
        person.user["organization_id"],
    )
    assert deferred == 1


async def test_a_token_is_good_for_its_purpose_alone(api: Api, worker: None) -> None:
    person = await sign_up(api)
    token = token_in(await mail_about(api, person.email, "Confirm your email address"))
    body = {"token": token, "new_password": OTHER_PASSWORD}
    await api.anonymous.error("POST", "/auth/password-reset-confirm", json=body, status=400)
    assert (await refresh(api, token)).status_code == 401


async def test_an_unverified_address_may_be_held_back(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, require_verified_email=True) as strict:
        person = await sign_up(strict)
        await person.client.get("/auth/me")
        error = await person.client.error("GET", "/properties", status=403)
        assert error["type"] == "AuthorizationError"
        await strict.value("update users set is_verified = true where id = $1", person.user["id"])
        await person.client.get("/properties")


# --- timing ----------------------------------------------------------------------------------------------------


async def test_known_and_unknown_addresses_make_the_same_transactions(api: Api) -> None:
    """What a failed log-in and a reset request leave in the database is the same for both, row for row."""
    person = await sign_up(api)
    left = []
    for email in (person.email, f"{uuid4().hex}@example.com"):
        before = await _row_counts(api)
        await try_login(api, email)
        await api.anonymous.post("/auth/password-reset-request", json={"email": email}, status=204)
        after = await _row_counts(api)
        left.append({name: after[name] - count for name, count in before.items()})
    assert left[0] == left[1]
    assert left[0]["pending_address_lookups"] == 2
    assert left[0]["login_attempts"] == 1


async def _row_counts(api: Api) -> dict[str, int]:
    tables = ("login_attempts", "pending_address_lookups", "audit_logs", "events", "sessions", "one_time_tokens")
    return {table: int(await api.value(f"select count(*) from {table}")) for table in tables}
