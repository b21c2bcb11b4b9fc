"""A real receiver of webhooks in the test's event loop, and how a receiver checks what it gets."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent and answers what it is told."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[int], web.StreamResponse] = lambda _: web.Response(text="thank you")
    gate: asyncio.Event | None = None  # answers wait for it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, await request.read()))
        if self.gate is not None:
            await self.gate.wait()
        return self.answer(len(self.requests))


@asynccontextmanager
async def receiving(receiver: Receiver | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens; a known one again at its own port, as after an outage."""
    receiver = receiver or Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", receiver.port)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        if receiver.gate is not None:
            receiver.gate.set()
        await runner.cleanup()


def is_signed(secret: str, headers: dict[str, str], body: bytes, which: int = 0) -> bool:
    """As the public specification of Standard Webhooks says a receiver checks it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, content, "sha256").digest()).decode()
    version, _, signature = headers["webhook-signature"].split(" ")[which].partition(",")
    return version == "v1" and hmac.compare_digest(signature, wanted)
