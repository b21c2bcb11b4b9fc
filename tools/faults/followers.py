"""Readers of the event stream that come again and again, each time with the number of the last event they have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import event_streams
import httpx
from event_streams import Message

from tools.faults.clients import PREFIX, Clients
from tools.faults.model import User

# The last is what httpx gives for a connection that ends in the moment in which it is made.
CUT_OFF = (httpx.HTTPError, AttributeError)


@dataclass(eq=False)
class Follower:
    """One reader and all that it has got, over all its connections."""

    user: User
    start: int | None = None  # the number after which its first stream began
    got: list[Message] = field(default_factory=list)
    connections: int = 0
    response: httpx.Response | None = None

    @property
    def last_id(self) -> int | None:
        return self.got[-1].id if self.got else self.start

    def sees(self, event: Mapping[str, Any]) -> bool:
        """Whether the service should show an event to this user."""
        if event["type"] == "notification":
            return event["data"]["user_id"] in (None, self.user.id)
        return f"{event['resource_type']}:read" in self.user.permissions


async def follow(clients: Clients, follower: Follower, stop: asyncio.Event) -> None:
    """Follow the events until told to stop, on connections that last for some seconds each."""
    base = f"http://{clients.wire.host}:{clients.wire.port}"
    async with httpx.AsyncClient(base_url=base, timeout=httpx.Timeout(30, read=60), verify=False) as http:  # noqa: S501
        while not stop.is_set():
            with suppress(*CUT_OFF):
                await _follow_once(clients, http, follower, stop)
            await asyncio.sleep(clients.dice.uniform(0.05, 0.5))


async def _follow_once(clients: Clients, http: httpx.AsyncClient, follower: Follower, stop: asyncio.Event) -> None:
    headers = {"Authorization": f"Bearer {follower.user.token}"}
    params: dict[str, str] = {}
    if clients.dice.random() < 0.3:
        ticket = await http.post(f"{PREFIX}/sse/ticket", headers=headers)
        if ticket.status_code != 201:
            _judge(clients, ticket)
            return
        headers, params = {}, {"ticket": ticket.json()["ticket"]}
    asked = follower.last_id
    if asked is not None and params:
        params["last_event_id"] = str(asked)
    elif asked is not None:
        headers["Last-Event-ID"] = str(asked)
    async with http.stream("GET", f"{PREFIX}/sse/stream", headers=headers, params=params) as response:
        if response.status_code != 200:
            await response.aread()
            _judge(clients, response)
            return
        stream = event_streams.Client(response)
        reading = asyncio.create_task(stream.read())
        try:
            follower.connections += 1
            await _take(clients, follower, stream, asked, stop)
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _take(
    clients: Clients, follower: Follower, stream: event_streams.Client, asked: int | None, stop: asyncio.Event
) -> None:
    """Take what comes, for some seconds or until the stream ends."""
    until = time.monotonic() + min(clients.dice.expovariate(1 / 12), 40)
    is_first = True
    while not stop.is_set() and (clients.is_over or time.monotonic() < until):
        try:
            async with asyncio.timeout(0.5):
                message = await stream.messages.get()
        except TimeoutError:
            continue
        if message is None:
            return
        if is_first:
            is_first = False
            _begin(clients, follower, message, asked)
        elif message.type in ("connected", "resync"):
            who = follower.user.email
            clients.model.blame("streams", f"{who} asked for what follows {asked} and got {message.data}")
        else:
            follower.got.append(message)


def _begin(clients: Clients, follower: Follower, message: Message, asked: int | None) -> None:
    if message.type != "connected" or asked not in (None, message.id):
        clients.model.blame("streams", f"{follower.user.email} asked for what follows {asked}, got {message}")
    if follower.start is None:
        follower.start = message.id


def _judge(clients: Clients, response: httpx.Response) -> None:
    clients.model.statuses[str(response.status_code)] += 1
    if response.status_code != 503 or "retry-after" not in response.headers:
        clients.model.blame("answers", f"{response.request.url}: {response.status_code} {response.text[:500]}")
