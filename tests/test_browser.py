"""The pages in a real browser: what they run, load and show, and what a person can do with them.

Skipped where Chromium is not installed. Every visit ends with the same questions: no error in the console, nothing that
the security policy had to stop, no request to another host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, TimeoutError, expect, sync_playwright
from running import ROOT, Run, home, http_get, http_request, running, until

from reos import demo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(300),  # A browser on a busy machine takes its time.
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"),
]

# It asks nobody for updates and the like, and knows no host but this machine.
ARGUMENTS = [
    "--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic",
    "--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
WAIT_MS = 40_000  # ReDoc takes its time on a busy machine
NEW_PASSWORD = "Another-good-1"
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The service as `make run` starts it, with demo data; no limits, since all pages come from one address."""
    limits = {f"RATE_LIMIT_PER_{window}": 0 for window in ("MINUTE", "HOUR", "DAY")}
    with home() as directory, running(directory, WORKERS=1, **limits) as run:
        yield run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        expect.set_options(timeout=WAIT_MS)
        # The profile is a new one, which goes away again.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, run: Run, *, expected: str = "", **options: Any) -> Iterator[Page]:
    """A page of a person who has not been here before. `expected` is a pattern of what the console may say."""
    context = browser.new_context(base_url=run.url, **options)
    context.set_default_timeout(WAIT_MS)
    asked: list[str] = []
    told: list[str] = []
    watch(context, asked, told)
    try:
        yield context.new_page()
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(run.url).netloc}
        unexpected = [text for text in told if not (expected and re.search(expected, text))]
        assert unexpected == []
    finally:
        context.close()


def watch(context: BrowserContext, asked: list[str], told: list[str]) -> None:
    """Note each request, each error of a script, and each error and warning of the console, which also tells what a
    security policy has stopped."""

    def note_request(request: Request) -> None:
        # What the page has made itself, such as a worker's script, comes from nowhere.
        if urlsplit(request.url).scheme not in ("data", "blob", "about"):
            asked.append(request.url)

    context.on("request", note_request)
    context.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    context.on("weberror", lambda error: told.append(str(error.error)))


def call(run: Run, method: str, path: str, token: str = "", body: Any = None, status: int = 200) -> Any:
    """A request of a program, beside the browser."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = http_request(method, f"{run.url}/api/v1{path}", headers=headers, json=body, timeout=30)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def register(run: Run) -> dict[str, str]:
    """A new Admin: email, password and access token."""
    person = {"email": f"{uuid4().hex[:12]}@example.com", "password": "Long-enough-1"}
    names = {"first_name": "Nora", "last_name": "New", "organization_name": "New & Sons"}
    made = call(run, "POST", "/auth/register", body=person | names, status=201)
    return person | {"token": made["access_token"]}


def open_mail(page: Page, address: str, subject: str) -> None:
    """Click on a mail in the outbox, once it is there."""

    def is_there() -> bool:
        page.goto("/dev/outbox")
        return mail.count() == 1

    mail = page.locator("li", has_text=address).get_by_role("link", name=subject)
    until(is_there)
    mail.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(subject)


def fetch_status(page: Page, path: str, body: dict[str, str]) -> int:
    """Have the page itself send a body to the API; the status."""
    status: int = page.evaluate(
        """async ([path, body]) => {
          const headers = {"Content-Type": "application/json"};
          return (await fetch(path, {method: "POST", headers, body: JSON.stringify(body)})).status;
        }""",
        [f"/api/v1{path}", body],
    )
    return status


# --- what every page owes to every reader -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsubscribe_path(run: Run) -> str:
    """Where the link in a campaign's mail leads."""
    return send_campaign(run, register(run), f"{uuid4().hex[:12]}@example.com")


def send_campaign(run: Run, admin: dict[str, str], address: str) -> str:
    """Send one to a lead; the path of the link that unsubscribes."""
    token = admin["token"]
    lead = {"first_name": "Grace", "last_name": "Hopper", "email": address, "source": "website"}
    call(run, "POST", "/leads", token, lead, 201)
    campaign = {"name": "Open house", "campaign_type": "email", "subject": "Open house", "content": "<p>Come!</p>"}
    made = call(run, "POST", "/campaigns", token, campaign, 201)
    call(run, "POST", f"/campaigns/{made['id']}/send", token)
    until(lambda: call(run, "GET", f"/campaigns/{made['id']}", token)["status"] == "completed")
    listed = http_get(f"{run.url}/dev/outbox").text
    mail = re.search(rf'"(/dev/outbox/[^"]+)">Open house</a> <span>{re.escape(address)}', listed)
    assert mail
    link = re.search(r'href="[^"]*(/t/u/[^"]+)"', http_get(f"{run.url}{mail[1]}").text)
    assert link
    return link[1]


PAGES = [
    "/",
    "/dev/outbox",
    "/dev/outbox/mail",
    "/verify-email?token=x",
    "/verify-email",
    "/reset-password?token=x",
    "/t/u/",
]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_accessible(run: Run, browser: Browser, unsubscribe_path: str, path: str, colours: Any) -> None:
    with visiting(browser, run, color_scheme=colours, viewport={"width": 1000, "height": 800}) as page:
        page.goto("/dev/outbox" if path == "/dev/outbox/mail" else unsubscribe_path if path == "/t/u/" else path)
        if path == "/dev/outbox/mail":
            page.get_by_role("link", name="Confirm your email address").first.click()
            expect(page.locator("iframe")).to_be_visible()
        assert page.evaluate(CHECKS) == []
        page.set_viewport_size({"width": 320, "height": 640})
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, (
            "a small screen has to be scrolled sideways"
        )


BROKEN = """
<body style="background: #fff; color: #999"><h1>One</h1><h1>Two</h1><h4>Four</h4><p>Too pale</p><img src="data:,">
<input><button></button><a href="/"></a><iframe></iframe><p id="a"></p><p id="a"></p><table><tr><th>x</th></tr></table>
<p style="transition: color 1s">Moves</p><input tabindex="3" aria-label="x" style="outline: none"></body>
"""


def test_the_checks_can_fail(browser: Browser) -> None:
    with browser.new_page() as page:
        page.set_content(BROKEN)
        found = page.evaluate(CHECKS)
    for fault in (
        "lang", "title", "one h1", "one main", "h4 after h1", "contrast of", "img without alt", "input without label",
        "button without name", "a without name", "iframe without title", "id a is there twice", "th without scope",
        "moves", "tabindex", "does not show the focus",
    ):  # fmt: skip
        assert any(fault in text for text in found), (fault, found)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(run: Run, browser: Browser) -> None:
    with visiting(browser, run) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        inside = "document.querySelector('main').contains(document.activeElement)"
        assert page.evaluate(inside), "the skip link does not lead into the content"


def test_pages_work_without_javascript(run: Run, browser: Browser) -> None:
    path = send_campaign(run, register(run), "no-script@example.com")
    with visiting(browser, run, java_script_enabled=False) as page:
        page.goto("/")
        expect(page.get_by_role("link", name="Try the API").first).to_be_visible()
        page.goto("/verify-email?token=x")
        expect(page.get_by_text("This page needs JavaScript")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)
        page.goto(path)
        page.get_by_role("button", name="Unsubscribe").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")


# --- the front page and the documents of the API ------------------------------------------------------------------


def test_the_front_page_leads_everywhere_and_shows_the_demo_log_ins(run: Run, browser: Browser) -> None:
    with visiting(browser, run) as page:
        page.goto("/")
        cells = page.locator("tbody tr").all_inner_texts()
        assert [row.split("\t") for row in cells] == [list(login) for login in demo.LOGINS]
        links = [link.get_attribute("href") for link in page.get_by_role("link").all()]
        for path in ("/docs", "/redoc", "/openapi.json", "/health", "/metrics", "/dev/outbox"):
            assert path in links
        _, email, password = demo.LOGINS[0]
        assert fetch_status(page, "/auth/login", {"email": email, "password": password}) == 200


def operations(run: Run) -> list[dict[str, Any]]:
    """What the document describes, each with its path."""
    document = http_get(f"{run.url}/openapi.json").json()
    return [{**operation, "path": path} for path, item in document["paths"].items() for operation in item.values()]


def shown_on_the_way_down(page: Page) -> set[str]:
    """The operations that Swagger UI shows from top to bottom; it draws only those in sight."""
    found: set[str] = set()

    def is_at_the_end() -> bool:
        found.update(page.evaluate("[...document.querySelectorAll('.opblock')].map(({ id }) => id)"))
        page.mouse.wheel(0, 800)
        page.evaluate("new Promise(requestAnimationFrame)")
        is_down: bool = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        return is_down

    page.mouse.move(600, 450)
    until(is_at_the_end, 60)
    is_at_the_end()
    return found


def operation_of(page: Page, tag: str, operation: dict[str, Any]) -> Locator:
    """An operation in Swagger UI, unfolded and ready to be sent."""
    page.evaluate("scrollTo(0, 0)")
    page.locator(".operation-filter-input").fill(operation["path"])
    block = page.locator(f"#operations-{tag}-{operation['operationId']}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def execute(block: Locator) -> Any:
    """Send it; the body that came back."""
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table .response").first
    expect(response.locator(".response-col_status")).to_contain_text("200")
    return json.loads(response.locator(".highlight-code pre").first.inner_text())


def test_swagger_ui_shows_all_operations_and_sends_them(run: Run, browser: Browser) -> None:
    described = {operation["operationId"]: operation for operation in operations(run)}
    with visiting(browser, run, viewport={"width": 1200, "height": 900}) as page:
        page.goto("/docs")
        page.locator(".opblock").first.wait_for()
        assert shown_on_the_way_down(page) == {
            f"operations-{operation['tags'][0]}-{name}" for name, operation in described.items()
        }
        assert execute(operation_of(page, "operations", described["healthz"])) == {"status": "ok"}

        _, email, password = demo.LOGINS[0]
        log_in = operation_of(page, "auth", described["log_in"])
        log_in.locator("textarea.body-param__text").fill(json.dumps({"email": email, "password": password}))
        with page.expect_response("**/api/v1/auth/login") as answer:
            assert execute(log_in)["token_type"] == "bearer"
        page.evaluate("scrollTo(0, 0)")
        page.locator(".btn.authorize").first.click()
        page.get_by_label("auth-bearer-value").fill(answer.value.json()["access_token"])
        page.locator(".modal-ux form").filter(has_text="bearer (http").get_by_role(
            "button", name="Apply credentials"
        ).click()
        page.locator(".modal-ux").get_by_role("button", name="Close", exact=True).first.click()
        assert execute(operation_of(page, "auth", described["get_me"]))["email"] == email


def test_redoc_shows_all_operations_and_finds_one(run: Run, browser: Browser) -> None:
    with visiting(browser, run, viewport={"width": 1400, "height": 900}) as page:
        page.goto("/redoc")
        search = page.get_by_placeholder("Search...")
        search.wait_for()
        titles = set(page.evaluate("[...document.querySelectorAll('h2')].map(({ textContent }) => textContent.trim())"))
        assert titles >= {operation["summary"] for operation in operations(run)}
        found = page.locator('[data-role="search:results"]').get_by_role("menuitem", name="Make a deal of a lead, once")

        def is_found() -> bool:
            # What is typed while the page is still busy is lost now and then, so it is typed again.
            search.fill("")
            search.press_sequentially("convert")
            with suppress(TimeoutError):
                found.wait_for(timeout=5000)
            return found.is_visible()

        until(is_found, 60)


# --- what mails lead to -------------------------------------------------------------------------------------------


def test_an_address_is_verified_from_the_html_of_the_mail(run: Run, browser: Browser) -> None:
    person = register(run)
    with visiting(browser, run) as page:
        open_mail(page, person["email"], "Confirm your email address")
        with page.expect_popup() as popup:
            page.frame_locator("iframe").get_by_role("link").first.click()
        opened = popup.value
        assert not call(run, "GET", "/auth/me", person["token"])["is_verified"], "opening the page used the link up"
        opened.get_by_role("button", name="Confirm the address").click()
        expect(opened.get_by_role("status")).to_have_text(re.compile("the address is confirmed"))
        expect(opened.get_by_role("button")).to_have_count(0)
    assert call(run, "GET", "/auth/me", person["token"])["is_verified"]


def test_a_link_that_is_spent_says_so(run: Run, browser: Browser) -> None:
    with visiting(browser, run, expected="status of 400") as page:
        page.goto("/verify-email?token=spent")
        page.get_by_role("button", name="Confirm the address").click()
        expect(page.get_by_role("status")).to_have_text("The link is invalid, was used before or has expired.")
        expect(page.get_by_role("status")).to_be_focused()


def test_a_forgotten_password_is_set_anew(run: Run, browser: Browser) -> None:
    person = register(run)
    login = {"email": person["email"], "password": person["password"]}
    with visiting(browser, run, expected="status of (422|401)") as page:
        page.goto("/")
        assert fetch_status(page, "/auth/password-reset-request", {"email": person["email"]}) == 204
        open_mail(page, person["email"], "Set a new password")
        page.locator("pre").get_by_role("link").first.click()
        new, again = page.get_by_label("New password"), page.get_by_label("The same again")
        send, status = page.get_by_role("button", name="Set the password"), page.get_by_role("status")

        def attempt(password: str, repeated: str, said: str | re.Pattern[str]) -> None:
            new.fill(password)
            again.fill(repeated)
            send.click()
            expect(status).to_have_text(said)

        attempt(NEW_PASSWORD, "something else", "The two are not the same.")
        attempt("weak", "weak", re.compile("at least 8 characters"))
        attempt(NEW_PASSWORD, NEW_PASSWORD, re.compile("The password is set"))
        expect(new).to_be_hidden()
        assert fetch_status(page, "/auth/login", login | {"password": NEW_PASSWORD}) == 200
        assert fetch_status(page, "/auth/login", login) == 401
    call(run, "GET", "/auth/me", person["token"], status=401)


def test_a_lead_unsubscribes(run: Run, browser: Browser) -> None:
    admin, address = register(run), f"{uuid4().hex[:12]}@example.com"
    send_campaign(run, admin, address)
    # To look into the outbox counts as no opening.
    with visiting(browser, run, expected=r"Loading the image '\S+/t/o/\S+' violates") as page:
        open_mail(page, address, "Open house")
        page.locator("pre").get_by_role("link").last.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Unsubscribe")
        assert call(run, "GET", "/suppressions", admin["token"])["total"] == 0
        page.get_by_role("button", name="Unsubscribe").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")
        expect(page.get_by_text(f"New & Sons will not write to {address} any more.")).to_be_visible()
    (suppression,) = call(run, "GET", "/suppressions", admin["token"])["items"]
    assert suppression["email"] == address


# --- live events --------------------------------------------------------------------------------------------------


def test_the_documented_loop_follows_events_through_a_restart(run: Run, browser: Browser) -> None:
    """The loop of docs/api.md, as it stands there, in a page of the service."""
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    loop = next(block for block in blocks if "EventSource" in block)
    admin = register(run)
    stage = (
        "(token) => { window.shown = []; const show = (type, data) => shown.push([type, data?.address]);"
        f" const reloadEverything = () => shown.push(['resync']);\n{loop}\nfollow(); }}"
    )

    def create(address: str) -> None:
        place = {"address": address, "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
        call(run, "POST", "/properties", admin["token"], place, 201)
        # The policy of the page allows no text to become a program, which Playwright's own waiting would need.
        until(lambda: address in [shown for _, shown in page.evaluate("shown")])

    with visiting(browser, run, expected="ERR_|Failed to load resource") as page:
        page.goto("/")
        page.evaluate(stage, admin["token"])
        until(lambda: page.evaluate("shown.length"))
        create("1 First Street")
        (server,) = run.children("reos.server")
        os.kill(server, signal.SIGKILL)
        until(lambda: run.children("reos.server") not in ([server], []))
        run.wait_ready()
        create("2 Second Street")
        told = [entry for entry in page.evaluate("shown") if entry[0] != "connected"]
    assert told == [["property.created", "1 First Street"], ["property.created", "2 Second Street"]]
