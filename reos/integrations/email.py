"""Mail: how a message is made, and the two ways out: a mail server, or files in an outbox directory."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from binascii import b2a_qp
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import format_datetime, make_msgid
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Protocol, cast
from uuid import uuid4

import aiosmtplib
import idna
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from reos.errors import EmailServiceError
from reos.metrics import MAILS, counted
from reos.settings import Settings, SettingsError

TIMEOUT = 20.0  # seconds for connecting and for each command
MAX_IDLE = 4  # connections kept open between mails
IDLE_SECONDS = 20.0  # servers hang up on idle clients, some after 30 s
BRIEF_SECONDS = 0.5  # that a connection is taken for as good as it was, and not asked
MAX_SHORT_SUBJECT = 66  # characters that fit into the header's first line
MAX_LISTED = 200  # mails that the outbox page shows
PERMANENT_CODES = range(500, 600)
SHUTTING_DOWN = 421  # an answer to any command, and about none

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_SPECIAL = re.compile(r"[\s<>()\[\],;:\"\\]")  # what would need quotes in an address, which no mailbox of today has
_OUTBOX_NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{12}\.eml")


@dataclass(frozen=True, slots=True)
class WrittenMail:
    """A mail as it goes over the wire, with its envelope, whose addresses are ASCII."""

    sender: str
    recipient: str
    content: bytes


class Mailer(Protocol):
    """A way out for mails."""

    async def send(self, message: EmailMessage | WrittenMail) -> None:
        """Hand a message over. Raises EmailServiceError, whose `temporary` says whether to try again."""
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


def make_mailer(settings: Settings) -> Mailer:
    """The mailer that the settings ask for. Raises SettingsError when they contradict each other."""
    if settings.smtp_host:
        return SmtpMailer(settings)
    return OutboxMailer(outbox_directory(settings))


# Making messages


class _Verbatim(UnstructuredHeader, BaseHeader):
    """A header that stands in one line as it is. The library would encode a long address, which nobody decodes there
    (RFC 2369, RFC 8058)."""

    def fold(self, *, policy: policy.Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


_REGISTRY = HeaderRegistry()
for _name in ("Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post"):
    _REGISTRY.map_to_type(_name, _Verbatim)
_POLICY = policy.SMTP.clone(header_factory=_REGISTRY)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: object) -> tuple[str, str]:
    """The text and the HTML of a template. Raises jinja2.UndefinedError for a value that is missing."""
    text, html = (_templates().get_template(f"{template}.{kind}").render(values) for kind in ("txt", "html"))
    return text.strip() + "\n", html


def build_message(
    settings: Settings,
    *,
    to: str,
    subject: str,
    text: str,
    html: str,
    headers: Mapping[str, str] | None = None,
    from_name: str | None = None,
    message_id: str | None = None,
) -> EmailMessage:
    """A complete message from the service to one address, as text and as HTML.

    `from_name` (SMTP_FROM_NAME unless given) stands beside SMTP_FROM_EMAIL; `message_id` has its angle brackets.

    Raises ValueError for an address or a header with control characters in it (they could begin another header)
    and for an address that is none.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = _address(settings.smtp_from_email, settings.smtp_from_name if from_name is None else from_name)
    message["To"] = _address(to)
    message["Subject"] = _plain(subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id or make_msgid(domain=settings.smtp_from_email.rpartition("@")[2] or "localhost")
    for name, value in (headers or {}).items():
        message[name] = _plain(value)
    # Quoted-printable passes every server, also those without 8BITMIME, and keeps lines short.
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


class MailWriter:
    """Writes many mails from one sender, ten times as fast as the library puts a message together."""

    def __init__(self, settings: Settings, from_name: str):
        """Raises ValueError for a name with control characters in it."""
        self.settings = settings
        self.from_name = from_name
        sender = EmailMessage(policy=_POLICY)
        sender["From"] = _address(settings.smtp_from_email, from_name)
        self._sender = _envelope_address(sender, "From")
        self._from = sender["From"].fold(policy=_POLICY).encode("utf-8", "surrogateescape")

    def write(
        self, *, to: str, subject: str, text: str, html: str, headers: Mapping[str, str], message_id: str
    ) -> EmailMessage | WrittenMail:
        """What `build_message` makes, written already where all addresses are ASCII. Raises ValueError as it does.

        `headers` and `message_id` stand in one line each.
        """
        recipient = _address(to).addr_spec
        if not (recipient + self._sender).isascii():
            return build_message(
                self.settings,
                to=to,
                subject=subject,
                text=text,
                html=html,
                headers=headers,
                from_name=self.from_name,
                message_id=message_id,
            )
        lines = [f"To: {recipient}", f"Subject: {_encoded(_plain(subject))}"]
        lines += [f"Date: {format_datetime(datetime.now(UTC))}", f"Message-ID: {_plain(message_id)}"]
        lines += [f"{name}: {_plain(value)}" for name, value in headers.items()]
        boundary = f"=_{token_hex(16)}"
        lines += ["MIME-Version: 1.0", f'Content-Type: multipart/alternative; boundary="{boundary}"', "", ""]
        parts = [self._from + "\r\n".join(lines).encode("ascii")]
        for kind, content in (("plain", text), ("html", html)):
            head = f'--{boundary}\r\nContent-Type: text/{kind}; charset="utf-8"\r\n'
            parts.append(f"{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n".encode())
            parts.append(_quoted(content))
        parts.append(f"--{boundary}--\r\n".encode())
        return WrittenMail(self._sender, recipient, b"".join(parts))


def _encoded(subject: str) -> str:
    """A subject as a header has it (RFC 2047), folded."""
    if subject.isascii() and len(subject) <= MAX_SHORT_SUBJECT and "=?" not in subject:
        return subject
    return Header(subject, "utf-8", header_name="Subject").encode(linesep="\r\n")


def _quoted(text: str) -> bytes:
    """Quoted-printable lines (RFC 2045, 6.7) that end as SMTP wants it."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return b2a_qp((lines + "\n").replace("\n", "\r\n").encode("utf-8", "replace"), istext=True)


def _plain(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("a mail header must not contain control characters")
    return value


def _address(address: str, name: str = "") -> Address:
    """An address for a header, its domain as the DNS knows it (IDNA 2008). One with a bad form raises ValueError."""
    local, _, domain = _plain(address).rpartition("@")
    if not local or not domain or _SPECIAL.search(address):
        raise ValueError("not an email address")
    return Address(_plain(name), local, domain if domain.isascii() else idna.encode(domain, uts46=True).decode())


# A mail server


def tls_mode(settings: Settings) -> str:
    """`tls`, `starttls` or `none`, where SMTP_TLS does not say: by the port, and never a log-in in the open.

    Raises SettingsError when a user is to log in over plain text to another host.
    """
    by_default = "tls" if settings.smtp_port == 465 else "none"
    if settings.smtp_port == 587 or (settings.smtp_user and by_default == "none"):
        by_default = "starttls"
    mode = settings.smtp_tls or by_default
    if mode == "none" and settings.smtp_user and not _is_this_host(settings.smtp_host):
        raise SettingsError("SMTP_TLS: none would send SMTP_PASSWORD to another host in plain text.")
    return mode


def _is_this_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class SmtpMailer:
    """Sends by SMTP (RFC 5321). A few connections stay open between mails, which sends twice as many a second."""

    def __init__(self, settings: Settings, tls_context: ssl.SSLContext | None = None):
        """`tls_context` replaces the system's certificate authorities. Raises SettingsError, see `tls_mode`."""
        self.settings = settings
        self.mode = tls_mode(settings)
        self.tls_context = tls_context or ssl.create_default_context()
        self._local_hostname: str | None = None  # found out once; it may take the DNS seconds
        self._idle: list[tuple[aiosmtplib.SMTP, float]] = []
        self._checking = asyncio.Lock()

    @counted(MAILS)
    async def send(self, message: EmailMessage | WrittenMail) -> None:
        """Send to the address in To. Raises EmailServiceError.

        `unknown` is set when the connection broke after the mail was handed over and before the server's answer.
        """
        if isinstance(message, WrittenMail):
            sender, recipient = message.sender, message.recipient
        else:
            sender, recipient = (_envelope_address(message, name) for name in ("From", "To"))
        with _translated():
            client, is_ascii = await self._open(sender, recipient)
        try:
            if isinstance(message, WrittenMail):
                content = message.content
            else:
                content = message.as_bytes(policy=policy.SMTP if is_ascii else policy.SMTPUTF8)
            with _translated(unknown=True):
                await client.data(content)
        except EmailServiceError as error:
            # An answer, even a refusal, leaves the connection usable.
            if isinstance(error.__cause__, aiosmtplib.SMTPResponseException):
                self._keep(client, is_clean=False)
            else:
                client.close()
            raise
        except BaseException:
            client.close()
            raise
        self._keep(client)

    async def close(self) -> None:
        """Hang up what is idle, politely where the server still answers."""
        idle, self._idle = self._idle, []
        for client, _ in idle:
            with suppress(aiosmtplib.SMTPException):
                await client.quit(timeout=1)
            client.close()

    async def check(self) -> None:
        """Connect, log in if that is set, and hold the connection for later. Raises EmailServiceError.

        One at a time, because anybody may ask for the health of the service, as often as they like.
        """
        async with self._checking:
            with _translated():
                client, _ = await self._connect()
            self._keep(client)

    async def _open(self, sender: str, recipient: str) -> tuple[aiosmtplib.SMTP, bool]:
        """A connection that has taken the envelope, and whether that is all ASCII."""
        while True:
            client, is_fresh = await self._connect()
            try:
                return client, await _begin(client, sender, recipient)
            except (aiosmtplib.SMTPResponseException, EmailServiceError):
                self._keep(client, is_clean=False)
                raise
            except OSError:
                client.close()
                if is_fresh:
                    raise
                # The server had hung up meanwhile, which says nothing of the mail.
            except BaseException:
                client.close()
                raise

    async def _connect(self) -> tuple[aiosmtplib.SMTP, bool]:
        """An idle connection, one that still answers where it has been idle for long, or a new one (True)."""
        while self._idle:
            client, idle_since = self._idle.pop()
            idle = asyncio.get_running_loop().time() - idle_since
            if idle < BRIEF_SECONDS and client.is_connected:
                return client, False
            if idle < IDLE_SECONDS:
                with suppress(aiosmtplib.SMTPException):
                    await client.rset()
                    return client, False
            client.close()
        settings = self.settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user or None,
            password=settings.smtp_password or None,
            local_hostname=self._local_hostname,
            use_tls=self.mode == "tls",
            start_tls=self.mode == "starttls",
            tls_context=None if self.mode == "none" else self.tls_context,
            timeout=TIMEOUT,
        )
        await client.connect()
        self._local_hostname = client.local_hostname
        return client, True

    def _keep(self, client: aiosmtplib.SMTP, *, is_clean: bool = True) -> None:
        """Hold a connection open. One with a mail that was refused is not clean: it is reset before the next."""
        if len(self._idle) < MAX_IDLE and client.is_connected:
            now = asyncio.get_running_loop().time()
            self._idle.append((client, now if is_clean else now - BRIEF_SECONDS))
        else:
            client.close()


def _envelope_address(message: EmailMessage, header: str) -> str:
    (address,) = message[header].addresses
    return cast(str, address.addr_spec)


async def _begin(client: aiosmtplib.SMTP, sender: str, recipient: str) -> bool:
    """The envelope; whether it is all ASCII. Addresses beyond that need the server's SMTPUTF8 (RFC 6531)."""
    if (sender + recipient).isascii():
        await client.mail(sender)
        await client.rcpt(recipient)
        return True
    if client.is_ehlo_or_helo_needed:
        await client.ehlo()
    if not client.supports_extension("smtputf8"):
        raise EmailServiceError(
            "The mail server does not take addresses beyond ASCII.", temporary=False, concerns_recipient=True
        )
    await client.mail(sender, options=["SMTPUTF8"], encoding="utf-8")
    await client.rcpt(recipient, encoding="utf-8")
    return False


@contextmanager
def _translated(*, unknown: bool = False) -> Iterator[None]:
    """EmailServiceError for what the server or the way to it does.

    4xx answers and broken connections are temporary. 5xx answers to the recipient or the content are not; those to
    the log-in, the sender or STARTTLS are about the service's configuration, which somebody mends while the mail
    waits. The server's words stay out of the message: they are not for the organisation's eyes.
    """
    try:
        yield
    except (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as error:
        is_temporary = error.code not in PERMANENT_CODES
        word = "put off" if is_temporary else "refused"
        raise EmailServiceError(
            f"The mail server {word} the mail ({error.code}).",
            temporary=is_temporary,
            concerns_recipient=error.code != SHUTTING_DOWN,
        ) from error
    except aiosmtplib.SMTPSenderRefused as error:
        raise EmailServiceError(f"The mail server refused SMTP_FROM_EMAIL ({error.code}).") from error
    except aiosmtplib.SMTPAuthenticationError as error:
        raise EmailServiceError(f"The mail server refused the log-in ({error.code}).") from error
    except aiosmtplib.SMTPResponseException as error:
        raise EmailServiceError(f"The mail server gave an unexpected answer ({error.code}).") from error
    except OSError as error:
        raise EmailServiceError("The mail server could not be reached.", unknown=unknown) from error
    except aiosmtplib.SMTPException as error:
        raise EmailServiceError("The mail server does not offer what SMTP_TLS or SMTP_USER needs.") from error


# The outbox


@dataclass(frozen=True, slots=True)
class OutboxMail:
    """A mail in the outbox. `text` and `html` are empty in a list."""

    name: str
    date: str
    sender: str
    recipient: str
    subject: str
    text: str = ""
    html: str = ""


def outbox_directory(settings: Settings) -> Path:
    """Where mails lie when no mail server is set."""
    return settings.data_dir.absolute() / "outbox"


class OutboxMailer:
    """Writes mails as files: whole or not at all, readable by their owner alone (they hold links that log in)."""

    def __init__(self, directory: Path):
        """`directory` is made when missing. Raises SettingsError when it cannot be."""
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"DATA_DIR: {directory} cannot be made: {error.strerror}.") from None

    @counted(MAILS)
    async def send(self, message: EmailMessage | WrittenMail) -> None:
        """Raises EmailServiceError when the file cannot be written."""
        content = message.content if isinstance(message, WrittenMail) else message.as_bytes()
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:12]}.eml"
        try:
            await asyncio.to_thread(_write, self.directory / name, content)
        except OSError as error:
            raise EmailServiceError("The outbox could not be written.") from error

    async def close(self) -> None:
        """Nothing is held open."""


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".part")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def list_outbox(directory: Path) -> list[OutboxMail]:
    """The newest mails, newest first, at most MAX_LISTED. Empty when there is no outbox."""
    try:
        names = sorted((name for name in os.listdir(directory) if _OUTBOX_NAME.fullmatch(name)), reverse=True)
    except FileNotFoundError:
        return []
    return [mail for name in names[:MAX_LISTED] if (mail := _read(directory, name, is_whole=False))]


def read_outbox(directory: Path, name: str) -> OutboxMail | None:
    """A mail by the name in the list; None for a name that is not there or is none."""
    return _read(directory, name, is_whole=True) if _OUTBOX_NAME.fullmatch(name) else None


def _read(directory: Path, name: str, *, is_whole: bool) -> OutboxMail | None:
    try:
        with open(directory / name, "rb") as file:
            message = BytesParser(policy=policy.default).parse(file, headersonly=not is_whole)
    except FileNotFoundError:
        return None
    date, sender, recipient, subject = (str(message.get(header, "")) for header in ("Date", "From", "To", "Subject"))
    text, html = (_body(message, kind) if is_whole else "" for kind in ("plain", "html"))
    return OutboxMail(name, date, sender, recipient, subject, text, html)


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return "" if part is None else cast(str, part.get_content())
