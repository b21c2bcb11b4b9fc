"""The supervisor and its servers, as real processes that are signalled and killed."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reos import server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "standin_server.py"


class Service:
    """A running stand-in."""

    def __init__(self, directory: Path, processes: int, **constants: float):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.directory = directory
        environment = os.environ | {
            "DATA_DIR": str(directory),
            "STANDIN_CONSTANTS": " ".join(f"{name}={value}" for name, value in constants.items()),
            "PYTHONPATH": str(SCRIPT.parent.parent),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.port), str(processes)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_ready(self) -> Service:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", self.process.communicate()
        return self

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    async def request(self, path: str = "/") -> str:
        """One request on a connection of its own; the body of the answer. Raises OSError or EOFError without one."""
        return (await self.ask(path))[1]

    async def ask(self, path: str) -> tuple[int, str]:
        """One request on a connection of its own; status and body."""
        client = Client(self.port)
        try:
            return await client.get(path)
        finally:
            client.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            for pid in self.children():
                os.kill(pid, signal.SIGCONT)
            self.process.kill()
        self.process.communicate()


class Client:
    """A keep-alive connection that tells a refused connection from a lost answer."""

    def __init__(self, port: int):
        self.port = port
        self.reader: asyncio.StreamReader | None = None

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Status and body. Raises ConnectionRefusedError when it cannot connect, else what became of the answer."""
        if self.reader is None:
            await self.connect()
        assert self.reader is not None
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = (await self.reader.readexactly(length)).decode()
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.reader = None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start_one(processes: int = 2, **constants: float) -> Service:
        services.append(Service(tmp_path, processes, **constants))
        return services[-1]

    yield start_one
    for service in services:
        service.stop()


async def until(is_so: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_a_killed_server_is_replaced_and_the_others_go_on(start: Callable[..., Service]) -> None:
    service = start().wait_ready()
    before = set(service.children())
    assert len(before) == 2
    answered = {int(body) for body in await asyncio.gather(*(service.request() for _ in range(50)))}
    assert answered == before
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: len(set(service.children()) - {victim}) == 2)
    answered = {int(body) for body in await asyncio.gather(*(service.request() for _ in range(50)))}
    assert answered == set(service.children())
    assert victim not in answered


async def test_what_a_killed_server_had_not_accepted_is_served_by_the_next(start: Callable[..., Service]) -> None:
    service = start().wait_ready()
    frozen = asyncio.create_task(service.request("/freeze"))
    await until(lambda: list(service.directory.glob("frozen-*")))
    victim = int(next(service.directory.glob("frozen-*")).name.split("-")[1])
    requests = [asyncio.create_task(service.request()) for _ in range(60)]
    await until(lambda: any(request.done() for request in requests))
    waiting = asyncio.wait(requests, timeout=0.5)
    _, stuck = await waiting
    assert len(stuck) > 10  # The frozen server's share.
    os.kill(victim, signal.SIGKILL)
    answered = {int(body) for body in await asyncio.gather(*requests)}
    assert victim not in answered
    with pytest.raises((OSError, EOFError)):
        await frozen


async def test_a_stop_under_load_loses_no_request(start: Callable[..., Service]) -> None:
    """Each client sends one request after the other until no connection can be made any more."""
    service = start().wait_ready()
    lost: list[BaseException] = []
    answers = 0

    async def keep_asking(keep_alive: bool) -> None:
        nonlocal answers
        client = Client(service.port)
        while True:
            try:
                await client.get("/")
                answers += 1
            except ConnectionRefusedError:
                return
            except (OSError, EOFError) as error:
                lost.append(error)
                return
            finally:
                if not keep_alive:
                    client.close()

    slow = asyncio.create_task(service.request("/slow/2.5"))
    clients = [asyncio.create_task(keep_asking(number % 2 == 0)) for number in range(16)]
    await until(lambda: answers > 200)
    children = service.children()
    service.process.send_signal(signal.SIGTERM)
    stopped_at = time.monotonic()
    while (await service.ask("/ready"))[0] == 200:
        pass
    assert time.monotonic() - stopped_at < server.DRAIN_SECONDS
    await asyncio.gather(*clients)
    assert lost == []
    assert await slow == "done"
    await until(lambda: service.process.poll() is not None)
    assert service.process.returncode == 0
    assert time.monotonic() - stopped_at < server.DRAIN_SECONDS + 3
    assert {path.name for path in service.directory.glob("stopped-*")} == {f"stopped-{pid}" for pid in children}


async def test_a_connection_that_has_just_been_made_may_still_send_its_request(start: Callable[..., Service]) -> None:
    service = start(1, DRAIN_SECONDS=0.3).wait_ready()
    stopped_at = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    await until(lambda: time.monotonic() - stopped_at > 0.2)
    client = Client(service.port)
    await client.connect()
    await until(lambda: time.monotonic() - stopped_at > 0.3 + 4 * server.IDLE_SECONDS)
    assert (await client.get())[0] == 200
    client.close()


async def test_a_rolling_restart_loses_no_request(start: Callable[..., Service]) -> None:
    """Neither of clients that keep their connection nor of others; not one finds the service unready."""
    service = start(STARTED_SECONDS=0.5).wait_ready()
    lost: list[BaseException] = []
    answers = 0
    stop = False

    async def keep_asking(keep_alive: bool, path: str = "/") -> None:
        nonlocal answers
        client = Client(service.port)
        while not stop:
            try:
                status, _ = await client.get(path)
                assert status == 200
                answers += 1
            except (OSError, EOFError, AssertionError) as error:
                lost.append(error)
                client.close()
            finally:
                if not keep_alive:
                    client.close()
        client.close()

    before = set(service.children())
    clients = [asyncio.create_task(keep_asking(number % 2 == 0)) for number in range(16)]
    clients += [asyncio.create_task(keep_asking(number % 2 == 0, "/ready")) for number in range(4)]
    await until(lambda: answers > 200)
    slow = [asyncio.create_task(service.request("/slow/2.5")) for _ in range(8)]
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: len(set(service.children()) - before) == 2 and not before & set(service.children()))
    assert {await task for task in slow} == {"done"}
    stop = True
    await asyncio.gather(*clients)
    assert lost == []
    assert {path.name for path in service.directory.glob("stopped-*")} == {f"stopped-{pid}" for pid in before}
    answered = {int(body) for body in await asyncio.gather(*(service.request() for _ in range(50)))}
    assert answered == set(service.children())


async def test_a_rolling_restart_that_cannot_start_leaves_all_as_it_is(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    service = start().wait_ready()
    before = service.children()
    (tmp_path / "fail").touch()
    service.process.send_signal(signal.SIGHUP)
    logs = tmp_path / "logs" / "web-1-2.log"
    await until(lambda: logs.exists() and "told to fail" in logs.read_text())
    await until(lambda: service.children() == before)
    assert {int(body) for body in await asyncio.gather(*(service.request() for _ in range(50)))} == set(before)
    (tmp_path / "fail").unlink()
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: len(service.children()) == 2 and not set(before) & set(service.children()))


async def test_a_server_that_somebody_else_stops_is_replaced_and_can_be_reached(start: Callable[..., Service]) -> None:
    """What it had the kernel overlook at its end, new connections, its replacement on the same socket gets again."""
    service = start(1, DRAIN_SECONDS=0.1).wait_ready()
    (before,) = service.children()
    os.kill(before, signal.SIGTERM)
    await until(lambda: service.children() not in ([], [before]))
    assert await service.request() == str(service.children()[0])


async def test_a_stop_during_a_rolling_restart_stops_old_and_new(start: Callable[..., Service]) -> None:
    service = start(DRAIN_SECONDS=0.5).wait_ready()
    slow = asyncio.create_task(service.request("/slow/2"))
    await service.request()
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: len(service.children()) == 3)
    children = service.children()
    service.process.send_signal(signal.SIGTERM)
    await until(lambda: service.process.poll() is not None)
    assert service.process.returncode == 0
    assert all(map(is_gone, children))
    assert await slow == "done"


async def test_a_lost_terminal_stops_it(tmp_path: Path) -> None:
    """The kernel sends SIGHUP then too."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"DATA_DIR": str(tmp_path), "PYTHONPATH": str(SCRIPT.parent.parent)}
        os.execv(sys.executable, [sys.executable, str(SCRIPT), "0", "1"])
    said = b""
    while b"ready" not in said:
        said += await asyncio.to_thread(os.read, terminal, 1000)
    os.close(terminal)
    await until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


async def test_a_request_that_does_not_end_is_cut_off_at_the_end_of_the_grace(start: Callable[..., Service]) -> None:
    service = start(1, DRAIN_SECONDS=0.1, GRACE_SECONDS=0.5).wait_ready()
    endless = asyncio.create_task(service.request("/slow/100"))
    await service.request()
    service.process.send_signal(signal.SIGTERM)
    await until(lambda: service.process.poll() is not None, 5)
    assert service.process.returncode == 0
    with pytest.raises((OSError, EOFError)):
        await endless


async def test_a_server_that_does_not_stop_is_killed(start: Callable[..., Service]) -> None:
    service = start(STOP_SECONDS=0.5).wait_ready()
    frozen = asyncio.create_task(service.request("/freeze"))
    await until(lambda: list(service.directory.glob("frozen-*")))
    service.process.send_signal(signal.SIGTERM)
    await until(lambda: service.process.poll() is not None, 5)
    await asyncio.wait([frozen])
    assert isinstance(frozen.exception(), OSError | EOFError)


async def test_a_second_signal_ends_it_at_once(start: Callable[..., Service]) -> None:
    service = start(DRAIN_SECONDS=10).wait_ready()
    children = service.children()
    service.process.send_signal(signal.SIGINT)
    while (await service.ask("/ready"))[0] == 200:
        pass
    service.process.send_signal(signal.SIGINT)
    await until(lambda: service.process.poll() is not None, 5)
    assert all(map(is_gone, children))


async def test_a_killed_supervisor_leaves_nothing_behind(start: Callable[..., Service]) -> None:
    service = start().wait_ready()
    children = service.children()
    assert all(os.getsid(pid) == pid for pid in children)  # Out of reach of a terminal's signals.
    service.process.kill()
    await until(lambda: all(map(is_gone, children)), 2)
    server.bind_sockets("127.0.0.1", service.port, 1)[0].close()


async def test_a_signal_during_the_start_stops_it(start: Callable[..., Service]) -> None:
    service = start()
    await until(lambda: len(service.children()) == 2)
    service.process.send_signal(signal.SIGTERM)
    await until(lambda: service.process.poll() is not None, 5)


async def test_servers_that_fail_at_their_start_again_and_again_end_it(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    service = start(1, MAX_FAILED_STARTS=2)
    _, errors = await asyncio.to_thread(service.process.communicate)
    assert service.process.returncode != 0
    assert "told to fail" in errors
    assert "web-1 ended with code 1 at its start 2 times in a row" in errors


async def test_servers_that_have_served_are_started_until_they_can(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    service = start(1, MAX_FAILED_STARTS=2, FIRST_WAIT=0.05, LONGEST_WAIT=0.05).wait_ready()
    (tmp_path / "fail").touch()
    os.kill(service.children()[0], signal.SIGKILL)
    logs = tmp_path / "logs" / "web-1.log"
    await until(lambda: logs.exists() and logs.read_text().count("told to fail") > 3, 30)
    (tmp_path / "fail").unlink()
    assert await service.request() == str(service.children()[0])


async def test_a_server_that_failed_once_is_started_again(start: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    service = start(1)
    logs = tmp_path / "logs" / "web-1.log"
    await until(lambda: logs.exists() and "told to fail" in logs.read_text())
    (tmp_path / "fail").unlink()
    service.wait_ready()


async def _drip(port: int, head: bytes, piece: bytes) -> bytes:
    """Send the head, then a piece every 50 ms until the server ends the connection; what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    # Its first part: a piece that arrives after the server has closed makes the rest a reset.
    answer = asyncio.create_task(reader.read(65536))
    while not answer.done():
        with suppress(OSError):
            writer.write(piece)
        await asyncio.wait([answer], timeout=0.05)
    writer.close()
    return await answer


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"x"),
        (b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["header", "body", "chunks"],
)
async def test_a_request_that_drips_in_is_cut_off(start: Callable[..., Service], head: bytes, piece: bytes) -> None:
    service = start(1, HEADER_SECONDS=0.5, BODY_SECONDS=0.5, DEADLINE_CHECK_SECONDS=0.1).wait_ready()
    async with asyncio.timeout(5):
        assert b" 408 " in await _drip(service.port, head, piece)


@pytest.mark.parametrize("second", [b"GET /body HTTP/1.1\r\n", b"POST /body HTTP/1.1\r\nContent-Length: 2\r\n\r\nx"])
async def test_a_request_behind_a_slow_one_has_its_own_time(start: Callable[..., Service], second: bytes) -> None:
    """What a client sends ahead waits for the answer before it, without its own time running."""
    service = start(1, HEADER_SECONDS=0.6, BODY_SECONDS=0.6, DEADLINE_CHECK_SECONDS=0.1).wait_ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /slow/1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + second)
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.3)
        writer.write(b"\r\n" if b"GET" in second else b"x")
        assert (await reader.readline()).split()[1] in (b"200", b"405")
    writer.close()


async def test_a_body_that_nobody_reads_is_cut_off(start: Callable[..., Service]) -> None:
    service = start(1, BODY_SECONDS=0.5, DEADLINE_CHECK_SECONDS=0.1).wait_ready()
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    async with asyncio.timeout(5):
        assert b" 404 " in await _drip(service.port, head, b"x")


async def test_a_large_body_has_the_time_it_needs(start: Callable[..., Service]) -> None:
    service = start(1, BODY_SECONDS=0.3, BODY_BYTES_PER_SECOND=1000, DEADLINE_CHECK_SECONDS=0.1).wait_ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\nConnection: close\r\n\r\n")
    for _ in range(10):
        writer.write(b"x" * 300)
        await asyncio.sleep(0.1)
    assert (await reader.read()).endswith(b"\r\n\r\n3000")
    writer.close()


@pytest.mark.parametrize("path", ["/large/8000000", "/pages/8000000"])
async def test_an_answer_that_is_not_taken_is_cut_off(start: Callable[..., Service], path: str) -> None:
    """Also when the client takes a little of it all the time."""
    service = start(1, TAKE_SECONDS=0.5, DEADLINE_CHECK_SECONDS=0.1).wait_ready()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(5):
            # What has come can still be read after the reset.
            while client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.ECONNRESET:
                assert len(client.recv(1)) == 1
                await asyncio.sleep(0.02)
    assert await service.request()


async def test_a_large_answer_has_the_time_it_needs(start: Callable[..., Service]) -> None:
    service = start(1, TAKE_SECONDS=0.3, BODY_BYTES_PER_SECOND=30_000, DEADLINE_CHECK_SECONDS=0.05).wait_ready()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        client.send(b"GET /large/300000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = 0
        began = time.monotonic()
        while data := client.recv(20_000):
            received += len(data)
            await asyncio.sleep(0.01)
    assert received > 300_000
    assert time.monotonic() - began > 0.6  # Twice what an answer has that nobody takes.


def test_a_server_raises_its_limit_of_open_files(start: Callable[..., Service]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        service = start(1).wait_ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (child,) = service.children()
    limit = resource.prlimit(child, resource.RLIMIT_NOFILE)
    assert limit == (min(hard, server.MAX_OPEN_FILES), hard)


async def test_idle_connections_and_slow_answers_have_no_deadline(start: Callable[..., Service]) -> None:
    service = start(1, HEADER_SECONDS=0.2, BODY_SECONDS=0.2, DEADLINE_CHECK_SECONDS=0.05).wait_ready()
    client = Client(service.port)
    await client.connect()
    await asyncio.sleep(0.5)
    assert await client.get("/slow/0.5") == (200, "done")
    assert await client.get("/slow/0.5") == (200, "done")
    client.close()


def test_a_taken_port_is_told_in_one_sentence() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(server.ServerError, match=rf"PORT {port} cannot be served: Address already in use\."):
            server.bind_sockets("127.0.0.1", port, 2)


def test_an_address_of_another_machine_is_told_in_one_sentence() -> None:
    with pytest.raises(server.ServerError, match=r"HOST 192\.0\.2\.1"):
        server.bind_sockets("192.0.2.1", 8000, 1)
