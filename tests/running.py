"""The service as `make run` starts it, as processes of its own: what test_run.py and test_readme.py start and stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from reos import embedded
from reos.settings import Settings

# Without TLS there is nothing to verify, and reading the certificates of all authorities takes longer than a request.
http_get = partial(httpx.get, verify=False)
http_post = partial(httpx.post, verify=False)
http_request = partial(httpx.request, verify=False)

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without any setting but these."""
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in settings.items()}}


def until(is_so: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Run:
    """A running `reos run`, in a directory of its own that is also where its .env and DATA_DIR are."""

    def __init__(self, directory: Path, *arguments: str, **settings: object):
        self.port = int(str(settings.get("PORT", 0))) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.output = directory / f"output-{self.port}"
        given = {"WORKERS": 2, **settings, "PORT": self.port}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reos", "run", *arguments],
                cwd=directory,
                env=environment(**given),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_ready(self) -> Run:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.said()
            with suppress(httpx.TransportError):
                return http_get(f"{self.url}/ready", timeout=5).status_code == 200
            return False

        until(is_ready, START_SECONDS)
        return self

    def wait_announced(self) -> str:
        """What it says once it is there."""
        until(lambda: "\n\n" in self.said().partition("Ctrl-C stops it.\n\n")[2], START_SECONDS)
        return self.said()

    def processes(self) -> list[int]:
        """The supervisor's children, and theirs."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with suppress(FileNotFoundError, ProcessLookupError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                found += map(int, children)
                waiting += map(int, children)
        return found

    def children(self, word: str) -> list[int]:
        """Those of them whose command line has this word, oldest first."""
        return sorted(pid for pid in self.processes() if word in command_of(pid))

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(30)

    def end(self) -> None:
        """Whatever happened, nothing of it goes on."""
        end_process(self.process)


def end_process(process: subprocess.Popen[Any]) -> None:
    """Stop a process, at first with a word."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


def command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):  # Which one depends on the moment at which it ended.
        return []


def is_gone(pid: int) -> bool:
    """Whether the process has ended; who was its parent may not have asked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def home() -> Iterator[Path]:
    """A directory with a space in its name that the account of the embedded Postgres can reach."""
    parent = Path(tempfile.mkdtemp(prefix="reos-test-"))
    parent.chmod(0o755)
    directory = parent / "real estate"
    directory.mkdir()
    try:
        yield directory
    finally:
        embedded.remove(directory / ".reos")
        shutil.rmtree(parent)


@contextmanager
def running(directory: Path, *arguments: str, **settings: object) -> Iterator[Run]:
    run = Run(directory, *arguments, **settings)
    try:
        yield run.wait_ready()
    finally:
        run.end()


def reos(directory: Path, *arguments: str, told: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "reos", *arguments],
        cwd=directory,
        env=environment(**settings),
        input=told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
