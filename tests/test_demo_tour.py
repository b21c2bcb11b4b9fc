"""The guided tour of tools/demo, run as a program beside a service that was started as `make run` starts it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, Run, environment, free_port, home, http_get, http_post, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROGRAM = [sys.executable, str(ROOT / "tools" / "demo")]
ESCAPE = "\033["


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Without demo data, and with the limits that it has by default: the tour keeps within them."""
    with home() as directory, running(directory, SEED_DEMO="false", WORKERS=1) as run:
        yield run


def tour(*arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=environment() | {"COLUMNS": "100"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


def test_the_tour_makes_what_it_tells_of(run: Run) -> None:
    told = tour("--url", run.url, "--yes")
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr
    assert told.stderr == ""
    steps = re.findall(r"^Step +(\d+) of (\d+) \[#+\.*\]  \S", told.stdout, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, int(steps[0][1]) + 1))
    assert ESCAPE not in told.stdout
    assert "Enter" not in told.stdout
    assert "waiting" not in told.stdout, "it met a rate limit"
    for line in ("-> 409 Conflict", "-> 412 Precondition Failed", "-> 404 Not Found", "-> 422 Unprocessable Content"):
        assert line in told.stdout
    assert "Idempotency-Replayed: true" in told.stdout
    for event in ("property.created", "lead.converted", "deal.stage_changed", "campaign.completed"):
        assert re.search(rf"^  live \| {event}: ", told.stdout, re.MULTILINE), event
    check_what_was_made(run, told.stdout)


def check_what_was_made(run: Run, told: str) -> None:
    found = re.search(r"^ +Log-in +(\S+) +(\S+)$", told, re.MULTILINE)
    assert found
    api = f"{run.url}/api/v1"
    login = http_post(f"{api}/auth/login", json={"email": found[1], "password": found[2]}).json()
    assert login["user"]["is_verified"]

    def get(path: str) -> Any:
        answer = http_get(f"{api}{path}", headers={"Authorization": f"Bearer {login['access_token']}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    (deal,) = get("/deals")["items"]
    assert (deal["stage"], deal["value"], deal["commission_rate"]) == ("closed_won", "625000.00", "3.00")
    assert [change["new_stage"] for change in reversed(get(f"/deals/{deal['id']}/history"))] == [
        "lead", "qualified", "proposal", "negotiation", "contract", "inspection", "financing", "closing", "closed_won",
    ]  # fmt: skip
    (commission,) = get(f"/deals/{deal['id']}/transactions")["items"]
    assert (commission["transaction_type"], commission["amount"]) == ("commission", "18750.00")
    (house,) = get("/properties")["items"]
    assert (house["status"], house["description"]) == ("sold", "With a new roof.")
    (image,) = get(f"/properties/{house['id']}/images")
    picture = http_get(image["url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    leads = {lead["first_name"]: lead["status"] for lead in get("/leads")["items"]}
    assert leads == {"Grace": "converted", "Alan": "new"}
    assert len(get(f"/leads/{deal['lead_id']}/activities")) == 1, "the retry did it twice"
    (portfolio,) = get("/portfolios")["items"]
    assert (portfolio["property_count"], portfolio["total_value"]) == (1, "640000.00")
    (campaign,) = get("/campaigns")["items"]
    assert (campaign["status"], campaign["total_recipients"], campaign["sent_count"]) == ("completed", 2, 2)
    outbox = http_get(f"{run.url}/dev/outbox").text
    assert all(f"{name}, see our new homes" in outbox for name in leads)
    actions = {entry["action"] for entry in get("/audit-logs?page_size=100")["items"]}
    assert {"create", "update", "convert", "send"} <= actions


# --- at a terminal ----------------------------------------------------------------------------------------------


class Terminal:
    """The tour at a terminal of its own, with somebody who reads and types."""

    def __init__(self, *arguments: str, **variables: str):
        self.fd, theirs = pty.openpty()
        kept = {name: value for name, value in environment().items() if name not in ("NO_COLOR", "TERM")}
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], env={**kept, "TERM": "xterm", **variables}, stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.said = ""

    def read_until(self, text: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0], self.said
            try:
                self.said += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # It has ended.
                break
        assert text in self.said, self.said

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.mark.parametrize(
    ("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_at_a_terminal_it_waits_for_enter_and_ctrl_c_leaves_quietly(
    run: Run, variables: dict[str, str], is_coloured: bool
) -> None:
    terminal = Terminal("--url", run.url, **variables)
    try:
        terminal.read_until("Enter goes on, Ctrl-C leaves.")
        assert "Step  2" not in terminal.said
        terminal.press(b"\n")
        terminal.read_until("Step  2 of")
        terminal.said = terminal.said.partition("Step  2 of")[2]
        terminal.read_until("Enter goes on, Ctrl-C leaves.")
        assert (ESCAPE in terminal.said) is is_coloured
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(10) == 130
        with pytest.raises(AssertionError):
            terminal.read_until("Traceback", 1)
    finally:
        terminal.end()


def test_without_anybody_to_press_enter_it_goes_on(run: Run) -> None:
    told = tour("--url", run.url)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("Enter goes on") == 1


# --- what goes wrong --------------------------------------------------------------------------------------------


class OtherService(BaseHTTPRequestHandler):
    """Answers as it is told: what a service says that is too busy, or is another one."""

    answers: dict[tuple[str, str], list[tuple[int, dict[str, str], Any]]]
    asked: list[str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"{self.command} {self.path}")
        waiting = self.answers.get((self.command, self.path), [])
        status, headers, content = (waiting.pop(0) if len(waiting) > 1 else waiting[0]) if waiting else (404, {}, {})
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def other() -> Iterator[tuple[str, type[OtherService]]]:
    handler = type("Told", (OtherService,), {"answers": {}, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


HEALTHY = {"service": "Real Estate OS API", "status": "healthy", "version": "1", "checks": {}}
TOO_MANY = {"error": {"type": "RateLimitExceededError", "message": "Too many requests.", "details": {}}}


def test_it_waits_as_long_as_a_rate_limit_says(other: tuple[str, type[OtherService]]) -> None:
    url, handler = other
    refusal = (409, {}, {"error": {"type": "ResourceAlreadyExistsError", "message": "Taken.", "details": {}}})
    handler.answers[("GET", "/health")] = [(200, {}, HEALTHY)]
    handler.answers[("POST", "/api/v1/auth/register")] = [(429, {"Retry-After": "2"}, TOO_MANY), refusal]
    started = time.monotonic()
    told = tour("--url", f"{url}/", "--yes")
    assert time.monotonic() - started >= 2
    assert "too many requests (429) and to wait 2 s: waiting." in told.stdout
    assert handler.asked == ["GET /health", "GET /dev/outbox"] + 2 * ["POST /api/v1/auth/register"]
    assert told.returncode == 1
    assert told.stderr == "POST /auth/register answered 409 where 201 was expected. It says: Taken.\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"service": "Another"}, "What answers at {url} is not Real Estate OS.\n"),
        (["no object"], "What answers at {url} is not Real Estate OS.\n"),
        ({**HEALTHY, "status": "unhealthy"}, "The service is unhealthy, so the tour ends here; "),
    ],
)
def test_what_is_no_healthy_service_is_one_sentence(
    other: tuple[str, type[OtherService]], content: Any, sentence: str
) -> None:
    url, handler = other
    handler.answers[("GET", "/health")] = [(200, {}, content)]
    told = tour("--url", url, "--yes")
    assert told.returncode == 1
    assert told.stderr.startswith(sentence.format(url=url))
    assert told.stderr.count("\n") == 1


def test_no_service_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    told = tour("--url", url, "--yes")
    assert told.returncode == 1
    assert told.stderr == f"No service answers at {url}. Start one with `make run`, or name another with --url.\n"


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:x"])
def test_what_is_no_address_is_one_sentence(url: str) -> None:
    told = tour("--url", url, "--yes")
    assert told.returncode == 1
    assert told.stderr == f"{url} is not the address of a service: it should be like http://127.0.0.1:8000.\n"


def test_it_needs_nothing_but_python() -> None:
    """Without any installed package, since `make demo` runs in the environment of `make run`."""
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(ROOT / "tools" / "demo")], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert {path.stem for path in Path(ROOT / "tools" / "demo").glob("*.py")} == set(told.stdout.split())


IMPORT_ALL = """
import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
for path in pathlib.Path(sys.argv[1]).glob("*.py"):
    importlib.import_module(path.stem)
    print(path.stem)
"""
