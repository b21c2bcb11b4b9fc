"""The supervisor: one single-process Sanic server a core (and a worker), restarted when killed, stopped cleanly.

The supervisor binds one SO_REUSEPORT socket for each server process, keeps them all open and hands them down. What a
killed server had not accepted yet waits in its socket for the replacement, instead of being reset.

SIGHUP renews the processes one after the other, with the code that is installed then: the replacement serves on the
same socket before the former process is told to end, so that at no moment a connection finds nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import re
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvloop
from loguru import logger
from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.exceptions import BadRequest, BadURL, RequestTimeout
from sanic.http.constants import HTTP, Stage
from sanic.http.http1 import HTTP_CONTINUE, Http
from sanic.server.async_server import AsyncioServer
from sanic.server.protocols.http_protocol import HttpProtocol

from reos.log import setup_logging
from reos.metrics import NAME_VARIABLE
from reos.processes import die_with_parent
from reos.settings import Settings, load_settings

BACKLOG = 4096  # connections that may wait in a socket; the kernel's own limit is often the same

# All in seconds. The whole service is gone STOP_SECONDS after it was told to.
DRAIN_SECONDS = 1.5  # /ready is 503 and answers say `Connection: close`, while new requests are still served
GRACE_SECONDS = 10.0  # for requests in flight, after that
STOP_SECONDS = 15.0  # then children are killed
HANDSHAKE_SECONDS = 0.2  # for connections that are being made when no more are taken
IDLE_SECONDS = 0.25  # a connection that was silent for so long holds no request on its way
FRESH_SECONDS = 2.0  # but a new one may: its client, or we, may have had no time yet

# A client may send a byte now and then for ever, and each resets Sanic's timers; these deadlines nothing moves.
HEADER_SECONDS = 15.0
BODY_SECONDS = 60.0
BODY_BYTES_PER_SECOND = 16 * 1024  # a large body may take a second more for each of these
TAKE_SECONDS = 60.0  # for an answer to be taken; a large one has more time at the same rate
DEADLINE_CHECK_SECONDS = 2.5

# A client that reads slowly has so much waiting in the kernel, which would take megabytes, beside what is on its way.
UNSENT_BYTES = 128 * 1024
# What hundreds of requests in flight hold is no garbage, and Python's own 700 would have all of it looked at again and
# again: 3 % of the time of a change by 256 clients.
OBJECTS_BETWEEN_COLLECTIONS = 5000
MAX_OPEN_FILES = 65_536  # of a server process, if the system lets it; many systems start with 1,024

STARTED_SECONDS = 5.0  # a child without a sign of its own is taken as started after so long
MAX_FAILED_STARTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0  # before a child that failed at its start is started again

# Linux' classic packet filters (Documentation/networking/filter.rst); one of a TCP socket sees the TCP header first.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_LOAD_BYTE, _AND, _SKIP_UNLESS_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_TCP_FLAGS, _SYN, _ACK = 13, 0x02, 0x10  # the place of the flags in the header (RFC 9293, section 3.1), and two of them
# struct sock_filter: instruction, how many to skip if so and if not, operand. What is returned passes, in bytes.
_NO_NEW_CONNECTION = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
        (_AND, 0, 0, _SYN | _ACK),
        (_SKIP_UNLESS_EQUAL, 0, 1, _SYN),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFFFFFF),
    )
)

# In struct tcp_info.
_LISTEN_QUEUE_OFFSET = 24  # of tcpi_unacked, which for a listening socket is its accept queue
_BYTES_ACKED_OFFSET = 120  # of tcpi_bytes_acked


class ServerError(Exception):
    """The service cannot run. The message is one sentence that says why."""


# --- One server process -----------------------------------------------------------------------------------------


MAX_CHUNK_HEAD_BYTES = 256
# RFC 9112, section 7.1: the end of what was before, the size, whatever is behind a semicolon.
_CHUNK_HEAD = re.compile(rb"\r\n0*[0-9A-Fa-f]{1,8}[ \t]*(?:;[^\r\n]*)?\r\n")


class StrictHttp(Http):
    """HTTP/1.1 that answers also what has no address, and takes the sizes of chunks as the standard writes them.

    Sanic takes whatever Python takes for a number, and any two bytes for the end of a chunk. A proxy in front of us may
    read another size there, and what follows is a request to one and a body to the other.
    """

    __slots__ = ()

    def init_for_request(self) -> None:
        super().init_for_request()
        if self.recv_buffer:
            # It came while the one before it was answered, which is no fault of its own.
            protocol: Any = self.protocol
            protocol.note_request()

    async def read(self) -> bytes | None:
        kind: Any = self.request_body  # Sanic's types do not know of the word.
        if kind == "chunked" and self.request_bytes_left == 0:
            await self._check_chunk_head()
        data: bytes | None = await super().read()
        return data

    async def _check_chunk_head(self) -> None:
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        buffer = self.recv_buffer
        while (end := buffer.find(b"\r\n", 2)) < 0 and len(buffer) <= MAX_CHUNK_HEAD_BYTES:
            await self._receive_more()
        if not 0 <= end <= MAX_CHUNK_HEAD_BYTES or not _CHUNK_HEAD.match(buffer):
            self.keep_alive = False
            raise BadRequest("Bad chunked encoding")

    def create_empty_request(self) -> None:
        try:
            super().create_empty_request()
        except BadURL:
            self.url = "*"
            super().create_empty_request()


class DeadlineProtocol(HttpProtocol):
    """HTTP/1.1 with deadlines: for the whole header and the whole body of a request, and for taking the answer."""

    HTTP_CLASS = StrictHttp
    __slots__ = ("_deadline_timer", "_request_began", "_taken_before", "_untaken_since")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._time = time.monotonic()
        self._request_began = 0.0
        self._untaken_since = 0.0
        self._taken_before = 0
        self._check_deadlines()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.recv_buffer and self._is_between_requests():
            self.note_request()
        super().data_received(data)

    def note_request(self) -> None:
        """The deadlines of a request count from now on."""
        self._request_began = time.monotonic()

    def close_if_quiet(self) -> None:
        """Close the connection unless a request may be on its way."""
        wait = IDLE_SECONDS if self._request_began else FRESH_SECONDS
        if time.monotonic() - self._time > wait:
            self.close_if_idle()

    def _check_deadlines(self) -> None:
        """End a request that takes too long to arrive: with 408, and next time, if it still arrives, without a word."""
        if self._task is not None and self._is_overdue():
            self._http.exception = RequestTimeout("The request took too long to arrive.")
            self._task.cancel()
        elif self._is_not_taken():
            logger.info("A connection is cut: its client takes its answer too slowly")
            self._cut()
        self._deadline_timer = self.loop.call_later(DEADLINE_CHECK_SECONDS, self._check_deadlines)

    def _is_between_requests(self) -> bool:
        # A body that nobody reads still belongs to the request, although that has been answered.
        http = self.http
        return http is None or (http.stage is Stage.IDLE and not getattr(http, "request_body", None))

    def _is_overdue(self) -> bool:
        http = self.http
        if http is None:
            return False
        took = time.monotonic() - self._request_began
        if http.stage is Stage.REQUEST:
            return took > HEADER_SECONDS
        if self._request_began and getattr(http, "request_body", None):
            received = (http.request_bytes or 0) - (http.request_bytes_left or 0)
            return took > BODY_SECONDS + received / BODY_BYTES_PER_SECOND
        return False

    def _is_not_taken(self) -> bool:
        """Whether the client has let an answer wait for too long, measured by what it has acknowledged."""
        if self.transport is None or not self.transport.get_write_buffer_size():
            self._untaken_since = 0.0
            return False
        if getattr(self.ctx, "is_event_stream", False):
            return False  # It has no end; the hub looks after it.
        now, taken = time.monotonic(), _bytes_acked(self.transport.get_extra_info("socket"))
        if not self._untaken_since:
            self._untaken_since, self._taken_before = now, taken
        allowed = TAKE_SECONDS + (taken - self._taken_before) / BODY_BYTES_PER_SECOND
        return now - self._untaken_since > allowed

    def _cut(self) -> None:
        """Close at once, with what waits in the kernel, which else would keep it for minutes."""
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _bytes_acked(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    return int(struct.unpack_from("Q", info, _BYTES_ACKED_OFFSET)[0])


def serve_socket(app: Sanic, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve `app` on a bound socket until SIGTERM, then drain and stop. Raises what the app's start raises."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, listener, on_ready))


async def _serve(app: Sanic, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    stop, replaced = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)

    def give_up_to_replacement() -> None:
        replaced.set()
        stop.set()

    loop.add_signal_handler(signal.SIGHUP, give_up_to_replacement)
    with contextlib.suppress(OSError):  # The usual case is that there is none.
        # A former process on this socket that somebody else has told to stop left its filter.
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    os.environ["SANIC_IGNORE_PRODUCTION_WARNING"] = "true"
    app.config.MOTD = False
    server = await app.create_server(
        sock=listener,
        protocol=DeadlineProtocol,
        backlog=BACKLOG,
        return_asyncio_server=True,
        asyncio_server_kwargs={"start_serving": False},
    )
    assert server is not None
    # Sanic leaves the header Alt-Svc out only where it knows that nothing but HTTP/1.1 is served.
    info = {"version": HTTP.VERSION_1, "host": "", "port": 0, "sock": listener}
    app.state.server_info.append(ApplicationServerInfo(info))
    await server.startup()
    await server.before_start()
    try:
        await server.start_serving()
        await server.after_start()
        gc.collect()
        gc.freeze()  # What the start made stays for ever; no collection need look at it again.
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
        on_ready()
        await stop.wait()
    finally:
        await _stop_server(app, server, listener, is_replaced=replaced.is_set())


async def _stop_server(app: Sanic, server: AsyncioServer, listener: socket.socket, *, is_replaced: bool) -> None:
    """Drain; take the last connections and close the listener; let requests end; close everything.

    A process that is replaced gives up its socket first, since another serves on it, and is no less ready than before
    for those that it has: they are only told to come again.
    """
    if is_replaced:
        app.ctx.replaced = True
        server.close()
        listener.close()
        await asyncio.sleep(DRAIN_SECONDS)
    else:
        app.ctx.draining = True
        await asyncio.sleep(DRAIN_SECONDS)
        await _close_listener(server, listener)
    await server.before_stop()
    deadline = time.monotonic() + GRACE_SECONDS
    while server.connections and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        await asyncio.sleep(0)  # What has arrived is read before anything is taken for idle.
        for connection in list(server.connections):
            connection.close_if_quiet()
    if server.connections:
        logger.warning("{} connections did not end in time", len(server.connections))
    for connection in list(server.connections):
        connection.abort()
    await server.after_stop()


async def _close_listener(server: AsyncioServer, listener: socket.socket) -> None:
    """Close the socket at a moment when no connection waits in it, or is being made: closing would reset them.

    New ones are not answered from now on. A client's system asks again after a second, and either finds another process
    or is refused.
    """
    try:
        _take_no_more(listener)
    except OSError as error:
        logger.warning("Connections that are being made now may be lost: {}", error)
    await asyncio.sleep(HANDSHAKE_SECONDS)
    deadline = time.monotonic() + 1
    while _waiting_connections(listener) and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    server.close()
    listener.close()


def _take_no_more(listener: socket.socket) -> None:
    """Have the kernel overlook who wants a new connection, but go on with those that are being made."""
    code = ctypes.create_string_buffer(_NO_NEW_CONNECTION, len(_NO_NEW_CONNECTION))
    # struct sock_fprog: how many instructions there are, and where.
    program = struct.pack("HP", len(code) // struct.calcsize("HBBI"), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _waiting_connections(listener: socket.socket) -> int:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, _LISTEN_QUEUE_OFFSET)[0])


def main(arguments: Sequence[str], create_app: Callable[[Settings], Sanic]) -> None:
    """What a child runs: serve on the inherited socket, and say on the inherited pipe when that is so.

    `arguments` are the name of the process and the numbers of the two descriptors.
    """
    component, listener_fd, ready_fd = arguments[0], int(arguments[1]), int(arguments[2])
    settings = load_settings()
    setup_logging(settings, component)
    _raise_file_limit()

    def tell_ready() -> None:
        os.write(ready_fd, b"1")

    try:
        serve_socket(create_app(settings), socket.socket(fileno=listener_fd), tell_ready)
    except Exception as error:
        logger.opt(exception=error).critical("{} cannot serve: {}", component, error)
        sys.exit(1)


def _raise_file_limit() -> None:
    """A connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- The supervisor ---------------------------------------------------------------------------------------------


def bind_sockets(host: str, port: int, number: int) -> list[socket.socket]:
    """One bound socket for each server process, all on the same address. Raises ServerError when it is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Without SO_REUSEPORT: another service of ours on the same port would share it unnoticed.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
        sockets = []
        for _ in range(number):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # The connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            listener.bind(address)
            sockets.append(listener)
    except OSError as error:
        raise ServerError(f"HOST {host} and PORT {port} cannot be served: {error.strerror or error}.") from error
    return sockets


@dataclass(slots=True)
class Child:
    """A process that is to run all the time."""

    name: str
    command: list[str]
    listener: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0
    ready_pipe: int | None = None
    former: subprocess.Popen[bytes] | None = None  # what the process replaces, until that has ended
    told_at: float | None = None  # when the former process was told to end

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def living(self) -> list[subprocess.Popen[bytes]]:
        """Its processes: one, or two while one replaces the other."""
        return [process for process in (self.process, self.former) if process is not None and process.poll() is None]


def web_children(sockets: Sequence[socket.socket], command: Sequence[str] = ("-m", "reos.server")) -> list[Child]:
    """A server process for each socket. `command` is what Python runs; it calls `main`."""
    full = [sys.executable, *command]
    return [Child(f"web-{number}", full, listener) for number, listener in enumerate(sockets, 1)]


def worker_child() -> Child:
    """The process that runs jobs."""
    return Child("worker", [sys.executable, "-m", "reos", "worker"])


class Supervisor:
    """Keeps children running until it is told to stop.

    `keep` is called every second, for what is no child of this kind (the embedded Postgres). `on_ready` is called
    once, when every server process serves. Until then a child that fails at its start again and again ends it all,
    unless `gives_up` is false, because that is somebody's unfinished edit.
    """

    def __init__(
        self,
        children: list[Child],
        environment: dict[str, str],
        *,
        keep: Callable[[], object] = lambda: None,
        on_ready: Callable[[], None] = lambda: None,
        gives_up: bool = True,
    ):
        self.children = children
        self.environment = {**os.environ, **environment}
        self._keep = keep
        self._on_ready = on_ready
        self._gives_up = gives_up
        self._stops = 0
        self._has_terminal = False
        self._is_renewal_wanted = False
        self._to_renew: deque[Child] = deque()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until the terminal is gone; SIGHUP renews all children, one by one.

        Raises ServerError when a child fails again and again before all have served.
        """
        with self._signals():
            try:
                for child in self.children:
                    self._start(child)
                announced = False
                while not self._stops:
                    self._wait(1.0)
                    self._keep()
                    for child in self.children:
                        self._tend(child)
                    self._renew()
                    if not announced and all(child.ready for child in self.children if child.listener):
                        announced = True
                        self._gives_up = False  # What has served will serve again, when its database is back.
                        self._on_ready()
            finally:
                self._stop()

    def restart(self) -> None:
        """Start all children anew, at once and without draining: for development."""
        self._to_renew.clear()
        for child in self.children:
            child.failures, child.restart_at = 0, 0.0
            for process in child.living:
                process.kill()
                process.wait()
            child.process = child.former = None
            self._forget_pipe(child)

    def _renew(self) -> None:
        """Take a rolling restart a step further: start the next replacement, or tell the process that it replaces."""
        if self._is_renewal_wanted and not self._to_renew:
            self._is_renewal_wanted = False
            self._to_renew.extend(self.children)
            logger.info("All processes are renewed, one after the other")
        while self._to_renew and self._is_renewed(self._to_renew[0]):
            self._to_renew.popleft().former = None
            if not self._to_renew:
                logger.info("All processes are renewed")

    def _is_renewed(self, child: Child) -> bool:
        now = time.monotonic()
        if child.former is None:
            if not (child.is_alive and child.ready):
                return True  # It is about to be started anyway.
            child.former, child.told_at = child.process, None
            self._start(child)
        elif child.former.poll() is not None:
            return True
        elif child.ready and child.told_at is None:
            # A server gives its socket up to the one that serves on it already.
            child.former.send_signal(signal.SIGTERM if child.listener is None else signal.SIGHUP)
            child.told_at = now
        elif child.told_at is not None and now - child.told_at > STOP_SECONDS:
            logger.warning("{} that is replaced did not stop in time and is killed", child.name)
            child.former.kill()
        return False

    def _start(self, child: Child) -> None:
        inherited = []
        command = list(child.command)
        if child.listener is not None:
            read_end, write_end = os.pipe()
            child.ready_pipe = read_end
            self._selector.register(read_end, selectors.EVENT_READ, child)
            inherited = [child.listener.fileno(), write_end]
            command += [child.name, *map(str, inherited)]
        child.process = subprocess.Popen(
            command,
            env={**self.environment, NAME_VARIABLE: child.name},
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the supervisor alone.
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it takes no lock
        )
        if child.listener is not None:
            os.close(write_end)
        child.ready = False
        child.started_at = time.monotonic()

    def _tend(self, child: Child) -> None:
        """Start a child again that has ended, sooner or later."""
        now = time.monotonic()
        if child.is_alive:
            if child.listener is None and now - child.started_at > STARTED_SECONDS:
                child.ready = True
            if child.ready:
                child.failures = 0
            return
        if child.process is not None:
            self._note_end(child, now)
        if child.process is None and now >= child.restart_at:
            self._start(child)

    def _note_end(self, child: Child, now: float) -> None:
        assert child.process is not None
        code = child.process.returncode
        child.process = None
        self._forget_pipe(child)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if child.told_at is None and child.former is not None and child.former.poll() is None:
            logger.error("The new {} {} at its start; the former ones go on and are not renewed", child.name, how)
            child.process, child.former, child.ready = child.former, None, True
            self._to_renew.clear()
            return
        if child.ready:
            logger.error("{} {}; it is started again", child.name, how)
            child.restart_at = now
            return
        child.failures += 1
        if child.failures >= MAX_FAILED_STARTS and self._gives_up:
            raise ServerError(f"{child.name} {how} at its start {child.failures} times in a row; its log says why.")
        wait = min(FIRST_WAIT * 2 ** (child.failures - 1), LONGEST_WAIT)
        logger.error("{} {} at its start; it is started again in {} s", child.name, how, wait)
        child.restart_at = now + wait

    def _wait(self, seconds: float) -> None:
        """Wait for a signal (also of a child's end), for a child's word that it is ready, or for the time to pass."""
        restarts = [child.restart_at - time.monotonic() for child in self.children if child.process is None]
        for key, _ in self._selector.select(max(0.0, min([seconds, *restarts]))):
            child = key.data
            if child is None:
                os.read(key.fd, 4096)
            else:
                child.ready = os.read(key.fd, 1) == b"1"
                self._forget_pipe(child)

    def _forget_pipe(self, child: Child) -> None:
        if child.ready_pipe is not None:
            self._selector.unregister(child.ready_pipe)
            os.close(child.ready_pipe)
            child.ready_pipe = None

    def _stop(self) -> None:
        """Tell the children to stop; kill those that have not by the end of the time, or all at a second signal."""
        for child in self.children:
            if child.listener is not None:
                child.listener.close()  # The children decide when they take no more connections.
            for process in child.living:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.living for child in self.children) and self._stops < 2 and time.monotonic() < deadline:
            self._wait(0.1)
        for child in self.children:
            for process in child.living:
                logger.warning("{} did not stop in time and is killed", child.name)
                process.kill()
                process.wait()
            self._forget_pipe(child)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note the signals to stop and to renew, and wake up for them and for the end of a child."""
        read_end, write_end = os.pipe()
        for end in (read_end, write_end):
            os.set_blocking(end, False)

        def count(signum: int, frame: object) -> None:
            self._stops += 1

        def hang_up(signum: int, frame: object) -> None:
            had_terminal, self._has_terminal = self._has_terminal, _has_terminal()
            if not had_terminal or self._has_terminal:
                self._is_renewal_wanted = True
            elif not outlives_terminal:
                self._stops += 1

        self._has_terminal = _has_terminal()
        outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # That is what nohup does.
        handlers = {
            signal.SIGTERM: count,
            signal.SIGINT: count,
            signal.SIGHUP: hang_up,
            signal.SIGCHLD: lambda signum, frame: None,
        }
        former = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        former_fd = signal.set_wakeup_fd(write_end)
        self._selector.register(read_end, selectors.EVENT_READ, None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(former_fd)
            for signum, handler in former.items():
                signal.signal(signum, handler)
            self._selector.close()
            for end in (read_end, write_end):
                with contextlib.suppress(OSError):
                    os.close(end)


def _has_terminal() -> bool:
    """Whether the process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    from reos.app import create_app

    main(sys.argv[1:], create_app)
