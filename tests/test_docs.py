"""What docs/api.md says is run: its examples in a shell, its programs beside a service; and its lists are compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import ROOT, Run, free_port, home, until

import reos.app  # noqa: F401  It fills the registry of endpoints.
from reos.errors import ReosError
from reos.integrations.webhooks import new_secret, signed_headers
from reos.middleware.endpoint import ENDPOINTS, PREFIX
from reos.openapi import TAGS, build_document
from reos.queries import (
    audit_logs,
    campaign_recipients,
    campaigns,
    deals,
    jobs,
    leads,
    portfolios,
    properties,
    suppressions,
    teams,
    transactions,
    users,
    webhooks,
)
from reos.queries.listing import Listing

HOST = "http://127.0.0.1:8000"
BODY = b'{"type":"lead.created","timestamp":"2026-01-31T09:00:00Z","data":{"first_name":"J\xc3\xbcrgen"}}'
LISTING = {"address": "1 Elm", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@cache
def guide() -> str:
    return (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The document's blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", guide(), re.DOTALL)


def block(language: str, word: str) -> str:
    """The one with a word in it."""
    (found,) = [text for text in blocks(language) if word in text]
    return found


@pytest.fixture(scope="module")
def service() -> Iterator[Run]:
    """The service as `make run` starts it, but that its webhooks may go to this machine."""
    with home() as directory:
        run = Run(
            directory,
            SEED_DEMO="false",
            WORKERS=1,
            WEBHOOK_ALLOW_PRIVATE="true",
            **dict.fromkeys(("RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_PER_HOUR", "RATE_LIMIT_PER_DAY"), 0),
        )
        try:
            yield run.wait_ready()
        finally:
            run.end()


# --- what it lists -----------------------------------------------------------------------------------------------


@cache
def operations() -> dict[tuple[str, str], str]:
    """The document's operations as the guide writes them, each with its group."""
    return {
        (method.upper(), path.removeprefix(PREFIX)): operation["tags"][0]
        for path, methods in build_document(ENDPOINTS, "")["paths"].items()
        for method, operation in methods.items()
    }


METHOD = "(?:GET|POST|PUT|PATCH|DELETE)"


@pytest.mark.unit
def test_every_operation_is_in_it_and_no_other() -> None:
    written = re.findall(rf"`({METHOD}(?:, {METHOD})*) (/[^\s`]+)`", guide())
    assert {(method, path) for methods, path in written for method in methods.split(", ")} == set(operations())


@pytest.mark.unit
def test_every_type_of_error_is_in_it_with_its_status() -> None:
    section = guide().partition("## Errors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| (`.*?) \|", section, re.MULTILINE)
    written = {
        (int(status), name)
        for statuses, names in rows
        for status in statuses.split(", ")
        for name in re.findall(r"`(\w+)`", names)
        # A row of two statuses has one type for each, in that order.
        if ", " not in statuses or statuses.split(", ").index(status) == re.findall(r"`(\w+)`", names).index(name)
    }
    known: set[tuple[int, str]] = set()
    waiting = ReosError.__subclasses__()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        known.add((error.status, error().type))
    assert written == known


@pytest.mark.unit
def test_every_sort_key_is_in_it() -> None:
    listings: dict[str, Listing] = {
        "properties": properties.LISTING,
        "leads": leads.LISTING,
        "deals": deals.LISTING,
        "transactions": transactions.LISTING,
        "portfolios": portfolios.LISTING,
        "teams": teams.LISTING,
        "campaigns": campaigns.LISTING,
        "recipients": campaign_recipients.LISTING,
        "users": users.LISTING,
        "webhooks": webhooks.LISTING,
        "deliveries": webhooks.DELIVERIES,
        "suppressions": suppressions.LISTING,
        "audit logs": audit_logs.LISTING,
        "jobs": jobs.LISTING,
    }
    table = guide().partition("| list | sort keys |\n")[2].partition("\n\n")[0]
    written = {
        name: re.findall(r"`(\w+)`", keys.partition(" (")[0])
        for names, keys in re.findall(r"^\| ([a-z, ]+) \| (`.*) \|$", table, re.MULTILINE)
        for name in names.split(", ")
    }
    assert written == {name: list(listing.sort_keys) for name, listing in listings.items()}


@pytest.mark.unit
def test_the_index_leads_to_every_section() -> None:
    titles = re.findall(r"^## (.+)$", guide(), re.MULTILINE)
    linked = re.findall(r"\[([^\]]+)\]\(#([a-z-]+)\)", guide().partition("\n## ")[0])
    assert sorted(title for title, _ in linked) == sorted(titles)
    for title, anchor in re.findall(r"\[([^\]]+)\]\(#([a-z-]+)\)", guide()):
        assert anchor in {re.sub(r"[^a-z -]", "", name.lower()).replace(" ", "-") for name in titles}, title


# --- the examples ------------------------------------------------------------------------------------------------


def requests_of(run: Run) -> list[tuple[str, str, int]]:
    """Method, path and status of each request that the service has answered, as its log tells them."""
    lines = [json.loads(line) for line in run.said().splitlines() if line.startswith("{")]
    return [(line["method"], line["path"], line["status"]) for line in lines if "duration_ms" in line]


def group_of(method: str, path: str) -> str | None:
    """The group of the operation that a request is for."""
    short = path.removeprefix(PREFIX)
    for (known, pattern), tag in sorted(operations().items(), key=lambda entry: entry[0][1].count("{")):
        if known == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), short):
            return tag
    return None


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_examples_work_when_pasted(service: Run) -> None:
    """All of them in one shell. A request that is refused has its status in the comment before it, and no other has."""
    script = "\n".join(blocks("sh")).replace(HOST, service.url)
    before = len(requests_of(service))
    shell = subprocess.run(
        ["sh", "-eu"], input=script, cwd=service.directory, capture_output=True, text=True, timeout=100
    )
    assert shell.returncode == 0, shell.stderr + shell.stdout
    told = requests_of(service)[before:]
    refused = [status for _, _, status in told if status >= 400]
    assert refused == [int(status) for status in re.findall(r"(?:^|\s)#.*?\b([45]\d\d)\b", script, re.MULTILINE)], told
    assert {group_of(method, path) for method, path, status in told if status < 400} == set(TAGS)
    assert re.search("^304$", shell.stdout, re.MULTILINE)
    assert "idempotency-replayed: true" in shell.stdout.lower()
    assert (service.directory / "copy.txt").read_text() == (service.directory / "letter.txt").read_text()
    assert (service.directory / "picture.png").read_bytes().startswith(b"\x89PNG")
    for name in ("deals.csv", "revenue.csv"):
        assert len((service.directory / name).read_text().splitlines()) == 2, name


# --- the programs ------------------------------------------------------------------------------------------------


class Person:
    """A new organisation's Admin."""

    def __init__(self, service: Run, name: str):
        self.url, self.token = service.url + PREFIX, ""
        body = {"email": f"{name}@example.com", "password": "correct Horse 7", "first_name": name, "last_name": "Lee"}
        self.token = self.call("POST", "/auth/register", body)["access_token"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        response = httpx.request(method, self.url + path, json=body, headers=headers, timeout=30, verify=False)
        assert response.is_success, response.text
        return response.json() if response.content else None


@contextmanager
def started(directory: Path, *command: str, **variables: object) -> Iterator[Callable[[], str]]:
    """A program that runs as long as this; what it has said so far."""
    output = directory / f"{command[-1]}.txt"
    with output.open("w") as file:
        program = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **{name: str(value) for name, value in variables.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield output.read_text
    finally:
        program.terminate()
        program.wait(10)


def deliveries(secret: str) -> list[tuple[bool, dict[str, str], bytes]]:
    """Whether it is to be accepted, headers and body: good ones, and each thing that may be wrong with one."""
    other = new_secret()
    now = int(time.time())
    good = signed_headers([secret], "own-1", now, BODY)
    return [
        (True, good, BODY),
        (True, signed_headers([other, secret], "own-2", now, BODY), BODY),
        (False, signed_headers([other], "own-3", now, BODY), BODY),
        (False, good, BODY + b" "),
        (False, good | {"webhook-id": "own-4"}, BODY),
        (False, signed_headers([secret], "own-5", now - 400, BODY), BODY),
        (False, signed_headers([secret], "own-6", now + 400, BODY), BODY),
        (False, good | {"webhook-timestamp": "soon"}, BODY),
        (False, {}, BODY),
    ]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "name", "program"),
    [
        ("python", "receiver.py", sys.executable),
        pytest.param("js", "receiver.mjs", "node", marks=needs_node),
    ],
)
def test_a_receiver_of_webhooks(service: Run, tmp_path: Path, language: str, name: str, program: str) -> None:
    (tmp_path / name).write_text(block(language, name), encoding="utf-8")
    person, port = Person(service, language), free_port()
    url = f"http://127.0.0.1:{port}/"
    webhook = person.call("POST", "/webhooks", {"url": url, "event_types": ["property.created"]})
    path = f"/webhooks/{webhook['id']}"
    with started(tmp_path, program, name, SECRET=webhook["secret"], PORT=port) as said:
        until(lambda: person.call("POST", f"{path}/test")["ok"])
        person.call("POST", "/properties", LISTING)
        until(lambda: [item["status"] for item in person.call("GET", f"{path}/deliveries")["items"]] == ["delivered"])
        until(lambda: said().split()[-1:] == ["property.created"])
        for accepted, headers, body in deliveries(webhook["secret"]):
            answer = httpx.post(url, headers=headers, content=body)
            assert answer.status_code == (204 if accepted else 401), (headers, said())
        # The same delivery once more is welcome, but done already.
        httpx.post(url, headers=signed_headers([webhook["secret"]], "own-1", int(time.time()), BODY), content=BODY)
        until(lambda: said().split().count("lead.created") == 2)


@pytest.mark.integration
@pytest.mark.slow
def test_the_follower_in_python_goes_on_where_it_was(service: Run, tmp_path: Path) -> None:
    (tmp_path / "follow.py").write_text(block("python", "follow.py"), encoding="utf-8")
    person = Person(service, "follower")

    def types(text: str) -> list[str]:
        lines = [line.split() for line in text.splitlines()]
        return [kind for kind, _ in groupby(line[1] for line in lines if len(line) > 1)]

    with started(tmp_path, sys.executable, "follow.py", API=service.url + PREFIX, TOKEN=person.token) as said:
        until(lambda: types(said()) == ["connected"])
        first = person.call("POST", "/properties", LISTING)
        until(lambda: types(said()) == ["connected", "property.created"])
        (server,) = service.children("reos.server")
        os.kill(server, signal.SIGKILL)
        until(lambda: service.children("reos.server") not in ([server], []))
        person.call("PATCH", f"/properties/{first['id']}", {"price": 1})
        until(lambda: "property.updated" in said())
        person.call("POST", "/auth/logout")
        until(lambda: "log in again" in said())
        assert types(said()) == ["connected", "property.created", "connected", "property.updated", "session"]


@pytest.mark.unit
@needs_node
def test_the_loop_in_a_browser_comes_again_where_it_was() -> None:
    """Run beside a browser that is played: what is opened, after an event, an error, a failed request and a log-out."""
    stage = """
    const opened = [], sources = [], shown = [], token = "t";
    const answers = [{ ticket: "T0" }, null, { ticket: "T1" }, 401];
    globalThis.fetch = async () => {
      const next = answers.shift();
      if (next === null) throw new TypeError("no network");
      return { status: next === 401 ? 401 : 201, json: async () => next };
    };
    globalThis.EventSource = class { constructor(url) { opened.push(url); sources.push(this); } close() {} };
    globalThis.setTimeout = (work) => work();
    const reloadEverything = () => shown.push("all"), show = (type) => shown.push(type);
    const logInAgain = () => shown.push("out");
    """
    play = """
    const settled = () => new Promise((done) => setImmediate(done));
    await follow();
    sources[0].onmessage({ lastEventId: "7", data: '{"type":"lead.created","data":{}}' });
    sources[0].onmessage({ lastEventId: "8", data: '{"type":"resync"}' });
    sources[0].onerror();
    await settled();
    sources[1].onerror();
    await settled();
    console.log(JSON.stringify({ opened, shown }));
    """
    ran = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=stage + block("js", "EventSource") + play,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(ran.stdout) == {
        "opened": ["/api/v1/sse/stream?ticket=T0", "/api/v1/sse/stream?ticket=T1&last_event_id=8"],
        "shown": ["lead.created", "all", "out"],
    }


@pytest.mark.unit
def test_clients_are_generated_as_the_tests_do() -> None:
    (shown,) = blocks("console")
    made = json.loads((ROOT / "tests/clients/typescript/package.json").read_text())["scripts"]["generate"]
    assert made.replace("openapi.json", f"{HOST}/openapi.json") in shown
    program = (ROOT / "tests/test_clients.py").read_text()
    assert all(f'"{option}"' in program for option in re.findall(r"--(?:meta|output-path)", shown))
