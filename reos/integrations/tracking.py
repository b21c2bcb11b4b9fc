"""The addresses that campaign mails hold for opening, clicking and unsubscribing, and the ids of the mails.

Each is a signed token that names the organisation and the recipient, so that it can be neither guessed nor changed. A
click's token holds the link itself: only what a mail of ours contained is ever led to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reos.auth.signing import Signer
from reos.settings import Settings

OPEN, CLICK, UNSUBSCRIBE, MESSAGE = "campaign open", "campaign click", "campaign unsubscribe", "campaign message"

_CLICK = re.compile(r"([0-9]+) ([0-9]+) (.+)")
_MESSAGE_ID = re.compile(r"<?([A-Za-z0-9_-]+)@[^<>@\s]+>?")


@dataclass(frozen=True, slots=True)
class Addresses:
    """What one recipient's mail links to."""

    settings: Settings
    signer: Signer
    organization_id: int
    recipient_id: int

    @property
    def pixel_url(self) -> str:
        return f"{self.settings.base_url}/t/o/{self._seal(OPEN)}"

    @property
    def unsubscribe_url(self) -> str:
        return f"{self.settings.base_url}/t/u/{self._seal(UNSUBSCRIBE)}"

    @property
    def message_id(self) -> str:
        """The Message-ID: the same at every try, and enough to find the recipient of a mail that bounced."""
        return f"<{self._seal(MESSAGE)}@{self.settings.smtp_from_email.rpartition('@')[2] or 'localhost'}>"

    def click_url(self, url: str) -> str:
        """What stands in the mail for a link."""
        token = self.signer.seal_text(CLICK, f"{self.organization_id} {self.recipient_id} {url}")
        return f"{self.settings.base_url}/t/c/{token}"

    def _seal(self, purpose: str) -> str:
        return self.signer.seal(purpose, self.organization_id, self.recipient_id)


def preview_unsubscribe_url(settings: Settings) -> str:
    """What stands in a preview, and unsubscribes nobody."""
    return f"{settings.base_url}/t/u/preview"


def open_token(signer: Signer, purpose: str, token: str) -> tuple[int, int] | None:
    """Organisation and recipient of a token for opening or unsubscribing; None for one that is not ours."""
    numbers = signer.open(purpose, token)
    return None if numbers is None or len(numbers) != 2 else (numbers[0], numbers[1])


def open_click(signer: Signer, token: str) -> tuple[int, int, str] | None:
    """Organisation, recipient and the link of a click's token; None for one that is not ours."""
    found = _CLICK.fullmatch(signer.open_text(CLICK, token) or "")
    return None if found is None else (int(found.group(1)), int(found.group(2)), found.group(3))


def open_message_id(signer: Signer, message_id: str) -> tuple[int, int] | None:
    """Organisation and recipient of a mail by its Message-ID, in angle brackets or not; None if it is not ours."""
    found = _MESSAGE_ID.fullmatch(message_id.strip())
    return None if found is None else open_token(signer, MESSAGE, found.group(1))
