"""A real S3 server (SeaweedFS) for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "reos-test", "reos-test-secret"
PORTS = [f"{part}{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]
START_SECONDS = 30


@dataclass
class S3Server:
    """Where it listens, and how to stop and start it."""

    port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not answer: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.endpoint}/", timeout=1).close()
        except urllib.error.HTTPError as error:
            return error.code < 500  # It asks who we are.
        except OSError:
            return False
        return True


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with a directory of its own, on free ports."""
    with tempfile.TemporaryDirectory(prefix="reos-s3-") as directory:
        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        options = [f"-{name.replace('.grpc', '.port.grpc') if '.grpc' in name else name + '.port'}={port}"
                   for name, port in ports.items()]  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("weed")), "-logtostderr", "mini", f"-dir={directory}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-filer.localSocket={directory}/filer.sock", f"-s3.localSocket={directory}/s3.sock", *options,
        ]  # fmt: skip
        server = S3Server(ports["s3"], command, Path(directory) / "server.log")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [listener.getsockname()[1] for listener in listeners]
