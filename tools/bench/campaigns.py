"""How fast a campaign is sent: against a bare aiosmtplib loop over as many connections, to the same sink, in one run.

    make bench ARGS="--parts campaigns"
    .venv/bin/python tools/bench/campaigns.py [NUMBER OF MAILS]    # by itself

The sink takes everything, in a process of its own. The service is the one of `reos run`, with its worker.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx
import psycopg

from reos import demo, embedded
from reos.integrations.email import build_message
from reos.jobs.campaigns import CONNECTIONS
from reos.seed.scale import Scale
from reos.settings import Settings

ROOT = Path(__file__).parents[2]
GOAL = 0.8
MAILS = 2000
START_SECONDS = 60
CONTENT = "<p>Hello {{first_name}},</p><p>we have a house for you at {{property_address}}.</p>"

SINK = """
import asyncio
from aiosmtpd.smtp import SMTP

class Handler:
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler()), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def running(command: list[str], directory: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in settings.items()}}
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def call(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    response = client.request(method, f"/api/v1{path}", **options)
    response.raise_for_status()
    return response.json()


def wait_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if client.get("/ready").is_success:
                return
        time.sleep(0.1)
    raise SystemExit("The service did not start.")


async def bare_loop(port: int, number: int) -> float:
    """Mails a second."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    html = CONTENT.replace("{{first_name}}", "First").replace("{{property_address}}", "1 Main Street")
    messages = [
        build_message(settings, to=f"lead{n}@example.com", subject="A house", text="Hello", html=html)
        for n in range(number)
    ]

    async def send_some() -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
            while messages:
                await client.send_message(messages.pop())

    began = time.perf_counter()
    await asyncio.gather(*(send_some() for _ in range(CONNECTIONS)))
    return number / (time.perf_counter() - began)


def campaign(client: httpx.Client, directory: Path, scale: Scale) -> float:
    """Mails a second to all leads of an organisation, from the first that was sent to the last."""
    (admin,) = scale.admins
    session = call(client, "POST", "/auth/login", json={"email": admin, "password": demo.SCALE_PASSWORD})
    client.headers["Authorization"] = f"Bearer {session['access_token']}"
    with embedded.start(directory / ".reos") as server, psycopg.connect(server.layout.dsn("postgres", "reos")) as conn:
        draft = {"name": "Bench", "campaign_type": "email", "subject": "A house", "content": CONTENT}
        path = f"/campaigns/{call(client, 'POST', '/campaigns', json=draft)['id']}"
        call(client, "POST", f"{path}/send", json={})
        while call(client, "GET", path)["status"] != "completed":
            time.sleep(0.2)
        row = conn.execute("select extract(epoch from max(sent_at) - min(sent_at)) from campaign_recipients").fetchone()
    assert row is not None
    assert call(client, "GET", path)["sent_count"] == scale.rows
    return scale.rows / float(row[0])


def compare(number: int) -> tuple[str, bool]:
    """Send so many mails both ways; what came of it, and whether the goal was reached."""
    scale = Scale(1, number)
    directory = Path(tempfile.mkdtemp(prefix="reos-bench-"))
    directory.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limits = {f"RATE_LIMIT_PER_{window}": 0 for window in ("MINUTE", "HOUR", "DAY")}
    try:
        with running([sys.executable, "-c", SINK], directory) as sink:
            assert sink.stdout is not None
            smtp_port = int(sink.stdout.readline())
            settings = {"PORT": port, "WORKERS": 1, "SEED_DEMO": "false", "SMTP_PORT": smtp_port, **limits}
            command = [sys.executable, "-m", "reos", "run"]
            before = asyncio.run(bare_loop(smtp_port, number))
            with (
                running(command, directory, SMTP_HOST="127.0.0.1", LOG_LEVEL="WARNING", **settings),
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
            ):
                wait_ready(client)
                seeding = [sys.executable, "-m", "reos", "seed", "--scale", str(scale)]
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                subprocess.run(seeding, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
                rate = campaign(client, directory, scale)
            after = asyncio.run(bare_loop(smtp_port, number))
    finally:
        embedded.remove(directory / ".reos")
        shutil.rmtree(directory)
    ratio = rate / ((before + after) / 2)
    text = (
        f"campaign of {number}: {rate:.0f} mails a second, a bare loop {before:.0f} and {after:.0f}: {ratio:.0%};"
        f" goal {GOAL:.0%}"
    )
    return text, ratio >= GOAL


def main() -> None:
    text, is_met = compare(int(sys.argv[1]) if len(sys.argv) > 1 else MAILS)
    print(text)
    sys.exit(0 if is_met else "The goal was not met.")


if __name__ == "__main__":
    main()
