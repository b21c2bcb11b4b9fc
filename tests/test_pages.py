"""The pages for people: what mails link to, the outbox, the front page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import Api, served_api
from conftest import TestDatabase

from reos import demo
from reos.handlers.docs import STATIC
from reos.handlers.pages import _policy
from reos.integrations.email import OutboxMailer, build_message, outbox_directory, render
from reos.seed import seed

pytestmark = pytest.mark.integration

LINK = "http://127.0.0.1:8000/verify-email?token=AB-c_9"


@pytest.fixture(scope="module")
async def dev(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The service as `make run` starts it, with the outbox for all to see."""
    async with served_api(database, tmp_path_factory.mktemp("dev"), dev_outbox=True) as api:
        yield api


def assert_is_harmless(response: httpx.Response) -> None:
    """It runs and loads only what the service itself serves, and tells no other site its address."""
    headers = response.headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    page = response.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", page)
    for address in re.findall(r"<(?:script|link|iframe|img)[^>]*\s(?:src|href)=\"([^\"]+)\"", page):
        assert address.startswith("/")
        assert not address.startswith("//")


def assert_is_accessible(page: str) -> None:
    assert '<html lang="en">' in page
    assert re.search(r"<title>[^<]+</title>", page)
    assert page.count("<main") == page.count("<h1") == page.count("<header>") == 1
    labelled = re.findall(r"<label for=\"([^\"]+)\"", page)
    assert re.findall(r"<input id=\"([^\"]+)\"", page) == labelled
    for frame in re.findall(r"<iframe[^>]*>", page):
        assert "title=" in frame


@pytest.mark.parametrize(
    "path", ["/", "/verify-email?token=x", "/verify-email", "/reset-password?token=x", "/dev/outbox"]
)
async def test_each_page_is_harmless_and_accessible(dev: Api, path: str) -> None:
    response = await dev.http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert_is_harmless(response)
    assert_is_accessible(response.text)
    for address in re.findall(r"(?:href|src)=\"(/[^\"]*)\"", response.text):
        assert (await dev.http.get(address)).status_code == 200, address
    head = await dev.http.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", ["/verify-email", "/reset-password", "/verify-email?token="])
async def test_without_a_token_a_page_says_so_and_offers_nothing(api: Api, path: str) -> None:
    page = (await api.http.get(path)).text
    assert "This address is not complete" in page
    assert "<form" not in page


async def test_a_page_does_not_repeat_what_its_address_says(api: Api) -> None:
    for path in ("/verify-email", "/reset-password"):
        page = (await api.http.get(path, params={"token": 'mark"><b>x'})).text
        assert "mark" not in page


def form_of(page: str) -> tuple[str, list[str]]:
    """Where the script sends the form, and the names of its fields (beside the token)."""
    address = re.search(r"<form data-address=\"([^\"]+)\"", page)
    assert address
    return address[1], re.findall(r"<input[^>]*\sname=\"([^\"]+)\"", page)


async def test_the_verification_page_sends_what_the_api_takes(api: Api) -> None:
    registration = {
        "email": "page@example.com", "password": "Long-enough-1", "first_name": "Pia", "last_name": "Page",
    }  # fmt: skip
    await api.anonymous.post("/auth/register", json=registration)
    token = await issue_token(api, registration["email"], "verify_email")
    page = (await api.http.get("/verify-email", params={"token": token})).text
    await api.http.get("/verify-email", params={"token": token})  # Looking at it uses nothing up.
    address, fields = form_of(page)
    assert fields == []
    assert (await api.http.post(address, json={"token": token})).status_code == 204
    again = await api.http.post(address, json={"token": token})
    assert again.status_code == 400
    assert again.json()["error"]["message"] == "The link is invalid, was used before or has expired."


async def test_the_reset_page_sends_what_the_api_takes(api: Api) -> None:
    registration = {
        "email": "reset@example.com", "password": "Long-enough-1", "first_name": "Rob", "last_name": "Reset",
    }  # fmt: skip
    await api.anonymous.post("/auth/register", json=registration)
    token = await issue_token(api, registration["email"], "password_reset")
    address, (field,) = form_of((await api.http.get("/reset-password", params={"token": token})).text)
    weak = await api.http.post(address, json={"token": token, field: "weak"})
    assert weak.status_code == 422
    assert all(entry["message"] for entry in weak.json()["error"]["details"]["errors"])
    assert (await api.http.post(address, json={"token": token, field: "Another-good-1"})).status_code == 204
    login = {"email": registration["email"], "password": "Another-good-1"}
    await api.anonymous.post("/auth/login", json=login, status=200)


async def issue_token(api: Api, email: str, purpose: str) -> str:
    """What the job of the mail would put into its link."""
    from reos.auth import one_time
    from reos.db import tenant_transaction

    (user,) = await api.fetch("select organization_id, id from users where email = $1", email)
    organization_id = user["organization_id"]
    async with tenant_transaction(api.database, organization_id) as conn:
        return await one_time.issue(conn, api.context.signer, user["id"], purpose, organization_id=organization_id)


def test_the_script_takes_the_token_from_the_address_and_no_password_leaves_by_it() -> None:
    script = (STATIC / "links.js").read_text()
    assert 'URLSearchParams(location.search).get("token")' in script
    assert 'method: "POST"' in script
    assert "innerHTML" not in script
    assert "eval" not in script


async def test_the_policy_is_told_as_it_is_set(api: Api) -> None:
    page = (await api.http.get("/reset-password?token=x")).text
    assert "At least 8 characters, with a capital letter, a small letter, a digit and a special character." in page
    some = api.settings.model_copy(update={"password_require_special": False, "password_require_digits": False})
    assert _policy(some) == "At least 8 characters, with a capital letter and a small letter."
    one = some.model_copy(update={"password_require_lowercase": False, "password_min_length": 12})
    assert _policy(one) == "At least 12 characters, with a capital letter."
    assert _policy(one.model_copy(update={"password_require_uppercase": False})) == "At least 12 characters."


async def test_below_a_path_of_public_url_the_pages_find_everything(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, public_url="https://example.org/crm") as api:
        page = (await api.http.get("/verify-email?token=x")).text
    assert 'data-address="/crm/api/v1/auth/verify-email"' in page
    assert 'src="/crm/static/links.js"' in page


# --- the outbox ------------------------------------------------------------------------------------------------


async def put_mail(api: Api, subject: str = "Confirm your email address", **values: Any) -> str:
    """A mail as the job sends it; its name in the outbox."""
    directory = outbox_directory(api.settings)
    before = {path.name for path in directory.glob("*.eml")}
    text, html = render(
        "verification",
        first_name="Ann & Bob",
        organization_name="<Homes>",
        service="Real Estate OS",
        link=LINK,
        hours=24,
    )
    message = build_message(
        api.settings,
        to="ann@example.com",
        subject=subject,
        text=values.get("text", text),
        html=values.get("html", html),
    )
    await OutboxMailer(directory).send(message)
    (name,) = {path.name for path in directory.glob("*.eml")} - before
    return name


async def test_the_outbox_shows_the_mails_newest_first(dev: Api) -> None:
    first, second = await put_mail(dev, "First <i>"), await put_mail(dev, "Second")
    page = (await dev.http.get("/dev/outbox")).text
    assert page.index(f'href="/dev/outbox/{second}">Second<') < page.index(
        f'href="/dev/outbox/{first}">First &lt;i&gt;<'
    )
    assert "ann@example.com" in page


async def test_a_mail_is_shown_with_its_links(dev: Api) -> None:
    name = await put_mail(dev)
    response = await dev.http.get(f"/dev/outbox/{name}")
    assert_is_harmless(response)
    assert_is_accessible(response.text)
    assert f'<a href="{LINK}"' in response.text
    assert "Ann &amp; Bob" in response.text
    assert "&lt;Homes&gt;" in response.text
    frame = re.search(r"<iframe[^>]*>", response.text)
    assert frame
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame[0]
    assert f'src="/dev/outbox/{name}?part=html"' in frame[0]


async def test_the_html_of_a_mail_can_do_nothing(dev: Api) -> None:
    name = await put_mail(dev, html="<html><head></head><body><script>alert(1)</script><p>Hello</p></body></html>")
    response = await dev.http.get(f"/dev/outbox/{name}?part=html")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "<p>Hello</p>" in response.text
    assert '<base target="_blank">' in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert re.search(r"sandbox(?!.*allow-(scripts|same-origin))", policy)
    assert response.headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize("name", ["nothing", "..%2F..%2Fjwt_secret_key", "20260101T000000000000-0123456789ab.eml"])
async def test_what_is_no_mail_is_not_found(dev: Api, name: str) -> None:
    response = await dev.http.get(f"/dev/outbox/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "ResourceNotFoundError"


@pytest.mark.parametrize(
    "settings",
    [{}, {"dev_outbox": True, "proxies_count": 1}, {"dev_outbox": True, "smtp_host": "mail.example.org"}],
    ids=["not asked for", "behind a proxy", "with a mail server"],
)
async def test_elsewhere_there_is_no_outbox(database: TestDatabase, tmp_path: Path, settings: dict[str, Any]) -> None:
    async with served_api(database, tmp_path, **settings) as api:
        name = await put_mail(api)
        for path in ("/dev/outbox", f"/dev/outbox/{name}", f"/dev/outbox/{name}?part=html"):
            assert (await api.http.get(path)).status_code == 404
        assert "/dev/outbox" not in (await api.http.get("/")).text


# --- the front page --------------------------------------------------------------------------------------------


async def test_the_front_page_shows_the_demo_log_ins_when_the_demo_data_is_there(
    fresh_database: TestDatabase, tmp_path: Path
) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        page = (await api.http.get("/")).text
        assert f"{api.settings.base_url}/api/v1" in page
        assert not any(email in page for _, email, _ in demo.LOGINS)
        await seed(api.settings)
        page = (await api.http.get("/")).text
        for who, email, password in demo.LOGINS:
            assert all(f">{word}<" in page for word in (who, email, password))
            await api.anonymous.post("/auth/login", json={"email": email, "password": password}, status=200)
