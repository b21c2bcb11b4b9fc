"""Those who get the campaigns' mails: some of them open one, follow its link or unsubscribe as soon as it has arrived.

The mail server takes a moment to say that it has a mail, and then the job keeps what became of it: that is when they
come.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from email import policy
from email.parser import BytesParser
from itertools import chain

from mail_sink import ReceivedMail

from tools.faults.clients import Clients
from tools.faults.model import Reaction

KINDS = {"o": 20, "c": 9, "u": 1}  # how often, after each once
PART = 0.3  # of the mails that somebody reads
POLL_SECONDS = 0.02
WAIT_SECONDS = (0.1, 0.25)  # from a mail's arrival; around run.MAIL_SECONDS
LINK = re.compile(r"/t/([ocu])/[^\"&]+")
MARK = re.compile(r"\bc[0-9]+-[0-9]+\b")


async def read_mails(clients: Clients, mails: Sequence[ReceivedMail]) -> None:
    """React to mails as they come in, until nothing new is begun."""
    seen, kinds = 0, chain(KINDS, _by_chance(clients))
    async with asyncio.TaskGroup() as group:
        while not clients.is_over:
            for mail in mails[seen:]:
                seen += 1
                if clients.dice.random() < PART and (links := _links(mail)):
                    group.create_task(_follow(clients, mail.recipient, links, next(kinds)))
            await asyncio.sleep(POLL_SECONDS)


def _by_chance(clients: Clients) -> Iterator[str]:
    while True:
        yield from clients.dice.choices(list(KINDS), list(KINDS.values()))


def _links(mail: ReceivedMail) -> dict[str, str]:
    """The mail's links by kind, and under `mark` what its campaign is known by; none if it is no campaign's."""
    message = BytesParser(policy=policy.default).parsebytes(mail.raw)
    mark, html = MARK.search(message["Subject"] or ""), message.get_body(("html",))
    if mark is None or html is None:
        return {}
    return {found[1]: found[0] for found in LINK.finditer(html.get_content())} | {"mark": mark[0]}


async def _follow(clients: Clients, address: str, links: dict[str, str], kind: str) -> None:
    """Follow one of the links until there is an answer."""
    method = "POST" if kind == "u" else "GET"
    await asyncio.sleep(clients.dice.uniform(*WAIT_SECONDS))
    while not clients.gives_up:
        answer = await clients.visit(method, links[kind])
        if answer is not None and answer.status != 503:
            clients.model.reactions.append(Reaction(links["mark"], address.lower(), kind))
            return
        await asyncio.sleep(clients.dice.uniform(0.05, 0.6))
