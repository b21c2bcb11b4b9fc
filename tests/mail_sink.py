"""A real mail server in the test's event loop, which keeps what it is sent and answers as told."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "postmaster", "a secret"
OK = "250 OK"


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A mail as it came in: its envelope and its content."""

    sender: str
    recipient: str
    raw: bytes
    is_encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        return BytesParser(policy=policy.default).parsebytes(self.raw)

    @property
    def text(self) -> str:
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")


class MailSink:
    """`async with MailSink() as sink` listens on a free port of 127.0.0.1, or on `port`.

    `answers` maps MAIL, RCPT and DATA to what is answered instead of 250. With `hang_up_after_data` the connection is
    cut when a mail has come in, without an answer. While `gate` is an event that is not set, answers to DATA wait.
    `tls` is none, starttls or tls; with `needs_login` mail is taken from USER with PASSWORD only.
    """

    def __init__(self, *, tls: str = "none", needs_login: bool = False, smtputf8: bool = True, port: int = 0):
        self.tls = tls
        self.needs_login = needs_login
        self.smtputf8 = smtputf8
        self.port = port
        self.mails: list[ReceivedMail] = []
        self.answers: dict[str, str] = {}
        self.hang_up_after_data = False
        self.gate: asyncio.Event | None = None
        self.connections = 0
        self._servers: list[SMTP] = []
        self._arrival = asyncio.Condition()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        context = server_context() if self.tls == "tls" else None
        self._server = await loop.create_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()
        handlers = [server._handler_coroutine for server in self._servers if server._handler_coroutine]
        await asyncio.gather(*handlers, return_exceptions=True)
        await self._server.wait_closed()

    def hang_up(self) -> None:
        """Cut every connection, as a server that is restarted does."""
        for server in self._servers:
            if server.transport is not None:
                server.transport.abort()
            if server._handler_coroutine is not None:
                server._handler_coroutine.cancel()

    async def received(self, number: int, timeout: float = 10) -> list[ReceivedMail]:
        """Wait until so many mails are there."""
        async with asyncio.timeout(timeout), self._arrival:
            await self._arrival.wait_for(lambda: len(self.mails) >= number)
        return self.mails

    async def find(self, is_it: Callable[[ReceivedMail], bool], timeout: float = 10) -> ReceivedMail:
        """Wait for the first mail of that kind."""
        async with asyncio.timeout(timeout), self._arrival:
            await self._arrival.wait_for(lambda: any(map(is_it, self.mails)))
        return next(filter(is_it, self.mails))

    def _serve(self) -> SMTP:
        self.connections += 1
        with warnings.catch_warnings():
            # It knows of STARTTLS only; a connection that is encrypted from the start looks open to it.
            warnings.filterwarnings("ignore", message="Requiring AUTH while not requiring TLS")
            server = SMTP(
                self,
                hostname="localhost",
                loop=asyncio.get_running_loop(),
                enable_SMTPUTF8=self.smtputf8,
                tls_context=server_context() if self.tls == "starttls" else None,
                require_starttls=self.tls == "starttls",
                auth_required=self.needs_login,
                auth_require_tls=self.tls == "starttls",
                authenticator=_authenticate,
            )
        self._servers.append(server)
        return server

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := self.answers.get("MAIL"):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return OK

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answer := self.answers.get("RCPT"):
            return answer
        envelope.rcpt_tos.append(address)
        return OK

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if answer := self.answers.get("DATA"):
            return answer
        (recipient,) = envelope.rcpt_tos
        user = session.auth_data.decode() if session.authenticated else None
        assert envelope.mail_from is not None
        assert isinstance(envelope.original_content, bytes)
        is_encrypted = server.transport.get_extra_info("sslcontext") is not None
        async with self._arrival:
            self.mails.append(
                ReceivedMail(envelope.mail_from, recipient, envelope.original_content, is_encrypted, user)
            )
            self._arrival.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        if self.hang_up_after_data:
            server.transport.abort()
        return OK


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    if (data.login, data.password) == (USER.encode(), PASSWORD.encode()):
        return AuthResult(success=True, auth_data=data.login)
    # With handled=True, which is the default, nobody would answer the client.
    return AuthResult(success=False, handled=False)


@cache
def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for localhost that signs itself, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def server_context() -> ssl.SSLContext:
    """TLS for the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "both.pem"
        path.write_bytes(b"".join(_certificate()))
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """TLS for a client that trusts the server, and nobody else."""
    return ssl.create_default_context(cadata=_certificate()[1].decode())
