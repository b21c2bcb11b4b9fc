"""Text messages: a small protocol, and its forms: files in an outbox, Twilio's HTTP API, any other HTTP service."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as Clock
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4
from zoneinfo import ZoneInfo

import aiohttp

from reos.errors import SMSServiceError
from reos.metrics import TEXTS, counted
from reos.settings import Settings, SettingsError

TIMEOUT = aiohttp.ClientTimeout(total=20, connect=10)  # seconds
MAX_ANSWER_BYTES = 64 * 1024
TWILIO_URL = "https://api.twilio.com"
CONNECTIONS = 8

QUIET_FROM, QUIET_UNTIL = Clock(21), Clock(8)  # by the recipient's clock

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


class Texter(Protocol):
    """A way out for text messages."""

    async def send(self, to: str, text: str, reference: str) -> str | None:
        """Hand a message over; what the provider calls it. `reference` is ours, the same at every try.

        Raises SMSServiceError, whose `temporary` says whether to try again.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


def make_texter(settings: Settings) -> Texter:
    """The provider that the settings ask for. Raises SettingsError when something that it needs is missing."""
    if settings.sms_provider == "outbox":
        return OutboxTexter(settings.data_dir.absolute() / "outbox" / "sms")
    wanted = (
        ["sms_api_key", "sms_api_secret", "sms_from_number"] if settings.sms_provider == "twilio" else ["sms_api_url"]
    )
    for name in wanted:
        if not getattr(settings, name):
            raise SettingsError(f"{name.upper()}: the SMS provider {settings.sms_provider} needs it.")
    return TwilioTexter(settings) if settings.sms_provider == "twilio" else HttpTexter(settings)


class OutboxTexter:
    """Writes messages as JSON files, readable by their owner alone."""

    def __init__(self, directory: Path):
        """`directory` is made with the first message."""
        self.directory = directory

    @counted(TEXTS)
    async def send(self, to: str, text: str, reference: str) -> str | None:
        """Raises SMSServiceError when the file cannot be written."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}"
        content = json.dumps({"to": to, "text": text, "reference": reference}, ensure_ascii=False)
        try:
            await asyncio.to_thread(self._write, name, content)
        except OSError as error:
            raise SMSServiceError("The outbox could not be written.") from error
        return name

    def _write(self, name: str, content: str) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.directory / f"{name}.part"
        partial.touch(mode=0o600)
        partial.write_text(content, encoding="utf-8")
        partial.rename(self.directory / f"{name}.json")

    async def close(self) -> None:
        """Nothing is held open."""


class _HttpProvider:
    """A session whose connections are kept, opened with the first message."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, url: str, **options: Any) -> tuple[int, Mapping[str, Any]]:
        """The status and the JSON of the answer. Raises SMSServiceError when there is none."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, trust_env=True)
        try:
            async with self._session.post(url, allow_redirects=False, **options) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) >= MAX_ANSWER_BYTES:
                        break
                return response.status, _object(bytes(body))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise SMSServiceError("The SMS provider could not be reached.") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            # It may have taken the message: only its answer is missing.
            raise SMSServiceError("The SMS provider did not answer.", unknown=True) from error


class TwilioTexter(_HttpProvider):
    """Twilio's Programmable Messaging: SMS_API_KEY is the account's SID, SMS_API_SECRET its token."""

    @counted(TEXTS)
    async def send(self, to: str, text: str, reference: str) -> str | None:
        settings = self.settings
        base = (settings.sms_api_url or TWILIO_URL).rstrip("/")
        status, answer = await self._post(
            f"{base}/2010-04-01/Accounts/{settings.sms_api_key}/Messages.json",
            data={"To": to, "From": settings.sms_from_number, "Body": text},
            headers={"Authorization": aiohttp.encode_basic_auth(settings.sms_api_key, settings.sms_api_secret)},
        )
        _check(status, answer.get("code"))
        return _name(answer.get("sid"))


class HttpTexter(_HttpProvider):
    """Any service that takes `{"to", "from", "text", "reference"}` as JSON by POST at SMS_API_URL.

    It is told SMS_API_KEY as a bearer token. A 2xx answer means that it has the message; `id` in its JSON is kept.
    """

    @counted(TEXTS)
    async def send(self, to: str, text: str, reference: str) -> str | None:
        settings = self.settings
        headers = {"Authorization": f"Bearer {settings.sms_api_key}"} if settings.sms_api_key else {}
        content = {"to": to, "from": settings.sms_from_number, "text": text, "reference": reference}
        status, answer = await self._post(settings.sms_api_url, json=content, headers=headers)
        _check(status, answer.get("code"))
        return _name(answer.get("id"))


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _name(value: Any) -> str | None:
    return str(value)[:300] if isinstance(value, str | int) and str(value).isprintable() else None


def _check(status: int, code: Any) -> None:
    """Raises SMSServiceError unless the provider took the message. Its words are not for the organisation's eyes."""
    if 200 <= status < 300:
        return
    told = f"{status}, {code}" if isinstance(code, int) else f"{status}"
    if status == 429 or status >= 500:
        # Too much at once, or out of order: that is about the provider, not about this message.
        raise SMSServiceError(f"The SMS provider put the message off ({told}).")
    if status in (401, 403, 404) or status < 400:
        raise SMSServiceError(f"The SMS provider refused the service ({told}).")
    raise SMSServiceError(f"The SMS provider refused the message ({told}).", temporary=False, concerns_recipient=True)


def plain_number(phone: str) -> str:
    """A phone number as providers want it: its digits, and the plus in front."""
    digits = re.sub("[^0-9]", "", phone)
    return f"+{digits}" if re.match("[^0-9]*[+]", phone) else digits


# Quiet hours


def zone_of(name: str | None, fallback: str) -> ZoneInfo:
    """The time zone of that name; the other one for what is none."""
    for candidate in (name, fallback):
        if candidate and len(candidate) <= 64 and _ZONE.fullmatch(candidate):
            try:
                return ZoneInfo(candidate)
            except (OSError, ValueError, LookupError):
                continue
    return ZoneInfo("UTC")


def quiet_until(now: datetime, zone: ZoneInfo) -> datetime | None:
    """When the quiet hours (21 to 8 o'clock) end that it is in there; None when it is day."""
    local = now.astimezone(zone)
    if QUIET_UNTIL <= local.time() < QUIET_FROM:
        return None
    day = local.date() + timedelta(days=1) if local.time() >= QUIET_FROM else local.date()
    return datetime.combine(day, QUIET_UNTIL, zone).astimezone(UTC)
