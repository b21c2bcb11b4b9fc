"""`reos run` and the other commands, as processes: starting, being killed, stopping, and what they say."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from raw_http import RawAnswer, read_answer
from running import (
    ROOT,
    Run,
    command_of,
    environment,
    free_port,
    home,
    http_get,
    http_post,
    is_gone,
    reos,
    running,
    until,
)

from reos import demo, server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with home() as directory:
        yield directory


@pytest.fixture(scope="module")
def run(directory: Path) -> Iterator[Run]:
    """One for many tests; only parts of it are ever killed."""
    with running(directory, RATE_LIMIT_PER_MINUTE=0, RATE_LIMIT_PER_HOUR=0) as run:
        yield run


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory for this test alone."""
    with home() as directory:
        yield directory


@pytest.fixture(scope="module")
def started_once() -> Iterator[Path]:
    """What the first start leaves behind."""
    with home() as directory:
        with running(directory, SEED_DEMO=0):
            pass
        yield directory


@pytest.fixture
def prepared(started_once: Path) -> Iterator[Path]:
    """A directory for this test alone in which the service has been started before, which takes a while."""
    with home() as directory:
        subprocess.run(["cp", "-a", started_once / ".reos", directory], check=True)
        yield directory


def log_in(url: str, number: int = 0) -> httpx.Response:
    _, email, password = demo.LOGINS[number]
    return http_post(f"{url}/api/v1/auth/login", json={"email": email, "password": password})


def test_it_says_where_everything_is_and_so_it_is(run: Run) -> None:
    said = run.wait_announced()
    for path in ("/", "/api/v1", "/docs", "/dev/outbox"):
        assert f"{run.url}{path}\n" in said
        assert path == "/api/v1" or http_get(f"{run.url}{path}").status_code == 200
    for number, (_, email, password) in enumerate(demo.LOGINS[:3]):
        assert f"{email}  {password}\n" in said
        assert log_in(run.url, number).status_code == 200
    assert http_get(f"{run.url}/health").json()["status"] == "healthy"


def test_jobs_are_run_and_mails_come_to_the_outbox(run: Run) -> None:
    person = {"email": "new@example.com", "password": "Long-enough-1", "first_name": "Nia", "last_name": "New"}
    assert http_post(f"{run.url}/api/v1/auth/register", json=person).status_code == 201
    until(lambda: http_get(f"{run.url}/dev/outbox").text.count("new@example.com") == 2)


def test_a_second_one_on_the_port_is_refused_at_once_in_one_sentence(run: Run, own: Path) -> None:
    refused = reos(own, "run", PORT=run.port)
    assert refused.returncode == 1
    assert refused.stderr == f"HOST 127.0.0.1 and PORT {run.port} cannot be served: Address already in use.\n"
    assert not (own / ".reos" / "postgres").exists()


def test_other_commands_share_its_database(run: Run, directory: Path) -> None:
    assert reos(directory, "migrate").stdout == "The database is up to date.\n"
    assert reos(directory, "seed").stdout.startswith("The demo data is there already.\n")
    doctor = reos(directory, "doctor")
    assert "fault" not in doctor.stdout
    assert "\nok      Workers that run: 1 (the last sign of life came " in doctor.stdout
    assert doctor.returncode == 0
    refused = reos(directory, "reset", "--yes")
    assert "stop it first" in refused.stderr
    assert refused.returncode == 1
    assert http_get(f"{run.url}/ready").status_code == 200


async def test_a_killed_server_comes_back_and_no_request_fails_but_those_it_held(run: Run) -> None:
    """Clients that send on new connections all the time see at most what was in the killed process's hands."""
    before = run.children("reos.server")
    assert len(before) == 2
    lost: list[str] = []
    statuses: set[int] = set()
    answers = 0
    stop = False

    async def keep_asking() -> None:
        nonlocal answers
        while not stop:
            # Without TLS there is nothing to verify, and loading the certificates takes longer than the request.
            async with httpx.AsyncClient(verify=False) as client:
                try:
                    response = await client.get(f"{run.url}/api/v1/properties?page_size=5", headers=headers)
                    statuses.add(response.status_code)
                    answers += 1
                except httpx.TransportError as error:
                    lost.append(repr(error))

    headers = {"Authorization": f"Bearer {log_in(run.url).json()['access_token']}"}
    clients = [asyncio.create_task(keep_asking()) for _ in range(8)]
    await asyncio.to_thread(until, lambda: answers > 20)
    os.kill(before[0], signal.SIGKILL)
    await asyncio.to_thread(until, lambda: len(set(run.children("reos.server")) - {before[0]}) == 2)
    seen = answers
    await asyncio.to_thread(until, lambda: answers > seen + 50)
    stop = True
    await asyncio.gather(*clients)
    assert statuses == {200}
    assert len(lost) <= len(clients)  # Each client has one request on its way.
    assert "web-1 was killed by SIGKILL; it is started again" in run.said() or "web-2 was killed" in run.said()


def test_a_killed_worker_comes_back(run: Run) -> None:
    (worker,) = run.children("worker")
    os.kill(worker, signal.SIGKILL)
    until(lambda: [pid for pid in run.children("worker") if pid != worker])


def test_a_killed_database_comes_back(run: Run) -> None:
    postgres = [pid for pid in run.children("-D") if command_of(pid)[0].endswith("postgres")]
    os.kill(postgres[0], signal.SIGKILL)
    until(
        lambda: http_get(f"{run.url}/ready", timeout=10).status_code == 200 and log_in(run.url).status_code == 200, 30
    )


# --- starts and stops ------------------------------------------------------------------------------------------


def test_it_starts_again_and_stops_within_the_grace_period(prepared: Path) -> None:
    with running(prepared, SEED_DEMO=0) as second:
        # What takes long is done once: a second start has nothing to set up.
        assert "Applied" not in second.said()
        processes = second.processes()
        assert len(processes) > 3
        stopped_at = time.monotonic()
        assert second.stop(signal.SIGINT) == 0
        assert time.monotonic() - stopped_at < server.STOP_SECONDS
        assert all(map(is_gone, processes))
        assert "Traceback" not in second.said()


async def test_a_stop_is_told_before_a_connection_is_refused_and_what_has_begun_ends(prepared: Path) -> None:
    """A proxy that asks /ready hears of it in time: on a connection that it has as on a new one."""
    body = b'{"email": "nobody@example.com", "password": "Wrong-horse-7"}'
    head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with running(prepared, SEED_DEMO=0, WORKERS=1) as run:
        begun, kept = await Wire.open(run.port), await Wire.open(run.port)
        begun.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:20])
        assert (await kept.ask_ready()).status == 200
        run.process.send_signal(signal.SIGTERM)
        while (await ask_ready(run.port)).status == 200:
            pass
        answers = [await kept.ask_ready()]
        with pytest.raises(ConnectionRefusedError):
            while True:
                answers.append(await ask_ready(run.port))
        assert len(answers) > 1
        for answer in answers:
            told = (answer.status, answer.json(), answer.header("connection"))
            assert told == (503, {"status": "draining"}, "close")
        begun.writer.write(body[20:])
        assert (await read_answer(begun.reader)).status == 401
        assert run.process.wait(server.STOP_SECONDS) == 0
        begun.writer.close()
        kept.writer.close()


@dataclass
class Wire:
    """A connection that is never opened again."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask_ready(self) -> RawAnswer:
        self.writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        return await read_answer(self.reader)


async def ask_ready(port: int) -> RawAnswer:
    wire = await Wire.open(port)
    try:
        return await wire.ask_ready()
    finally:
        wire.writer.close()


def test_without_demo_data_nobody_can_log_in(prepared: Path) -> None:
    with running(prepared, SEED_DEMO=0) as run:
        assert demo.LOGINS[0][1] not in run.wait_announced()
        assert log_in(run.url).status_code == 401
    loaded = reos(prepared, "seed")
    assert loaded.stdout.startswith("The demo data is loaded.\n")
    with running(prepared, SEED_DEMO=0) as run:
        assert log_in(run.url).status_code == 200


def test_a_killed_supervisor_leaves_nothing_that_blocks_the_next(prepared: Path) -> None:
    with running(prepared, SEED_DEMO=0) as first:
        processes = first.processes()
        first.process.kill()
        first.process.wait()
        with running(prepared, SEED_DEMO=0, PORT=first.port) as second:
            assert second.process.poll() is None
            assert http_get(f"{first.url}/ready").status_code == 200
        until(lambda: all(map(is_gone, processes)))


def test_everything_killed_at_once_leaves_nothing_that_blocks_the_next(prepared: Path) -> None:
    with running(prepared, SEED_DEMO=0) as first:
        for pid in (first.process.pid, *first.processes()):
            # Some of them die with their parent before it is their turn.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        first.process.wait()
        with running(prepared, SEED_DEMO=0, PORT=first.port):
            assert http_get(f"{first.url}/ready").status_code == 200


def test_a_signal_at_any_moment_of_the_start_stops_it(own: Path) -> None:
    for wait, signum in ((0.2, signal.SIGTERM), (0.9, signal.SIGINT), (1.6, signal.SIGTERM)):
        run = Run(own)
        try:
            time.sleep(wait)
            processes = run.processes()
            run.stop(signum)
            until(lambda: all(map(is_gone, processes)), 5)  # noqa: B023 - it is called at once
            assert "Traceback" not in run.said()
        finally:
            run.end()
    with running(own):
        pass


def test_ctrl_c_while_it_is_being_imported_ends_it_without_a_word(own: Path) -> None:
    run = Run(own)
    try:
        until(lambda: "_pydantic_core" in Path(f"/proc/{run.process.pid}/maps").read_text())
        assert run.stop(signal.SIGINT) == -signal.SIGINT
        assert run.said() == ""
    finally:
        run.end()


def test_make_dev_starts_again_when_a_file_has_changed_and_goes_with_its_parent(prepared: Path) -> None:
    """What make starts it with, from a copy of the sources; make does not hand every signal on."""
    recipe = re.search(r"^dev:.*\n\t@exec \$\(PY\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    for name in ("reos", "migrations"):
        shutil.copytree(ROOT / name, prepared / name)
    port = free_port()
    url = f"http://127.0.0.1:{port}/healthz"
    command = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    with subprocess.Popen(
        [*command, sys.executable, *recipe[1].split()],
        cwd=prepared,
        env=environment(PORT=port, SEED_DEMO=0, WORKERS=1),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        try:
            until(lambda: _answers(url) == '{"status":"ok"}', 30)
            (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
            source = prepared / "reos" / "handlers" / "health.py"
            source.write_text(source.read_text().replace('{"status": "ok"}', '{"status": "changed"}'))
            until(lambda: _answers(url) == '{"status":"changed"}', 30)
            assert not is_gone(child)
        finally:
            parent.kill()
            parent.wait()
    until(lambda: is_gone(child))


def _answers(url: str) -> str:
    try:
        return http_get(url).text
    except httpx.TransportError:
        return ""


# --- settings and mistakes -------------------------------------------------------------------------------------


def test_settings_come_from_the_file_and_the_environment_wins(prepared: Path) -> None:
    port = free_port()
    (prepared / ".env").write_text(f"PORT={port}\nSEED_DEMO=false\nSMTP_FROM_NAME=From the file\nDATA_DIR=elsewhere\n")
    refused = reos(prepared, "run", PORT="none")
    assert (refused.returncode, refused.stderr.startswith("PORT: ")) == (2, True)
    with running(prepared, PORT=port, DATA_DIR=prepared / ".reos", WORKERS=1) as run:
        assert demo.LOGINS[0][1] not in run.wait_announced()
        # Processes that are renewed read the file again.
        assert "Strict-Transport-Security" not in http_get(f"{run.url}/healthz").headers
        (prepared / ".env").write_text("PUBLIC_URL=https://crm.example.com\n")
        run.process.send_signal(signal.SIGHUP)
        until(lambda: "Strict-Transport-Security" in http_get(f"{run.url}/healthz").headers)
    assert not (prepared / "elsewhere").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PORT": "eighty"}, "PORT: Input should be a valid integer, unable to parse string as an integer.\n"),
        ({"JWT_SECRET_KEY": "short"}, "JWT_SECRET_KEY must have at least 32 bytes.\n"),
        ({"DATA_DIR": "/dev/null/data"}, "DATA_DIR: /dev/null/data cannot be used: Not a directory.\n"),
        (
            {"DATA_DIR": "/dev/null/data", "JWT_SECRET_KEY": "x" * 32},
            "DATA_DIR: /dev/null/data cannot be used: Not a directory.\n",
        ),
        ({"HOST": "192.0.2.1"}, "HOST 192.0.2.1 and PORT 8000 cannot be served: Cannot assign requested address.\n"),
    ],
)
def test_what_is_wrong_is_one_sentence(own: Path, settings: dict[str, str], sentence: str) -> None:
    ended = reos(own, "run", **settings)
    assert ended.returncode != 0
    assert ended.stderr.endswith(sentence)
    assert "Traceback" not in ended.stderr


def test_a_database_that_does_not_answer_is_told(own: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ended = reos(own, "run", PORT=free_port(), DB_DSN=f"postgresql://x@127.0.0.1:{closed.getsockname()[1]}/x")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("Postgres cannot be reached: ")


def test_a_reset_of_what_is_not_there_says_so(own: Path) -> None:
    ended = reos(own, "reset", "--yes")
    assert (ended.returncode, ended.stderr) == (1, f"There is no {own / '.reos'}; nothing was removed.\n")
    assert not (own / ".reos").exists()


def test_a_reset_asks_first(own: Path) -> None:
    (own / ".reos").mkdir()
    assert reos(own, "reset").stderr.endswith("Nothing was removed.\n")
    assert reos(own, "reset", told="no\n").returncode == 1
    assert (own / ".reos").exists()
    assert reos(own, "reset", told="y\n").returncode == 0
    assert not (own / ".reos").exists()


def test_an_admin_is_made_from_the_command_line(run: Run, directory: Path) -> None:
    made = reos(directory, "create-admin", "root@example.org", "-", "New Homes", told="Long-enough-1\n")
    assert made.stdout == "root@example.org is the Admin of the new organisation New Homes.\n", made.stderr
    joined = reos(directory, "create-admin", "second@example.org", "Long-enough-2", "new homes")
    assert joined.stdout == "second@example.org is an Admin of New Homes.\n", joined.stderr
    accounts = []
    for email, password in (("root@example.org", "Long-enough-1"), ("second@example.org", "Long-enough-2")):
        answer = http_post(f"{run.url}/api/v1/auth/login", json={"email": email, "password": password}).json()
        me = http_get(f"{run.url}/api/v1/auth/me", headers={"Authorization": f"Bearer {answer['access_token']}"}).json()
        assert me["is_verified"]
        assert [role["name"] for role in me["roles"]] == ["Admin"]
        accounts.append(me["organization"])
    assert accounts[0] == accounts[1]
    assert (accounts[0]["name"], accounts[0]["slug"]) == ("New Homes", "new-homes")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("root@example.net", "weak", "X"), "The password must have at least 8 characters and "),
        (("nobody", "Long-enough-1", "X"), "The address is not acceptable: "),
        (("x@example.net", "Long-enough-1", " "), "The organisation is not acceptable: "),
        ((demo.LOGINS[0][1], "Long-enough-1", "X"), f"A user with the address {demo.LOGINS[0][1]} exists already.\n"),
    ],
)
def test_what_no_admin_can_be_made_of_is_one_sentence(
    run: Run, directory: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    refused = reos(directory, "create-admin", *arguments)
    assert refused.returncode == 1
    assert refused.stderr.startswith(sentence)
    assert refused.stderr.count("\n") == 1
