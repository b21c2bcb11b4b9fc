"""Webhooks on the wire: signatures as Standard Webhooks has them, and a client that goes to public addresses only.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Who may name a URL could otherwise have the service knock at what only the service can reach. So an address is judged
when a URL is saved, and again where it cannot be got around: a name is resolved once, every address that it has is
judged, and the socket is made for one of these and no other. Redirects are not followed, and no proxy is asked.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import socket
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from secrets import token_bytes
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from reos import __version__
from reos.auth.signing import Signer

TIMEOUT_SECONDS = 15.0  # for an attempt in all
LOOKUP_SECONDS = 3.0  # for a name, when a URL is saved
MAX_READ_BYTES = 64 * 1024  # of an answer
MAX_KEPT_BYTES = 1024
MAX_CONNECTIONS = 100  # of a process
LOOKUP_THREADS = 8
FIRST_FREE_PORT = 1024  # below are mail servers, name servers and the like, which no webhook is for

SECRET_PREFIX = "whsec_"  # noqa: S105
SECRET_BYTES = 32
SECRET_PURPOSE = "webhook-secret"  # noqa: S105

# What is not the public Internet. Python's `is_global` lets some of it through.
_REFUSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
# All else (loopback, mapped IPv4, NAT64, unique local, link-local, multicast, …) is outside of it.
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",
            "2002::/16",  # 6to4 holds an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",
        ),
    )
)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Resolve = Callable[[str, int], Awaitable[list[str]]]


class RefusedUrlError(ValueError):
    """A URL that webhooks do not go to. The message says why; `code` is stable."""

    def __init__(self, message: str, code: str):
        super().__init__(message)
        self.code = code


class RefusedAddressError(OSError):
    """An address that webhooks do not go to."""


# --- signatures --------------------------------------------------------------------------------------------------


def new_secret() -> str:
    """A new secret as its owner sees it: the prefix and the key in base64."""
    return SECRET_PREFIX + b64encode(token_bytes(SECRET_BYTES)).decode()


def open_secrets(signer: Signer, sealed: Sequence[bytes]) -> list[str]:
    """The secrets as they were before the service encrypted them."""
    return [signer.decrypt(SECRET_PURPOSE, secret).decode() for secret in sealed]


def signed_headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove whose message it is: a signature by each secret; `timestamp` in seconds since 1970."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    signatures = (hmac.digest(b64decode(secret.removeprefix(SECRET_PREFIX)), signed, "sha256") for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{b64encode(signature).decode()}" for signature in signatures),
    }


# --- addresses ---------------------------------------------------------------------------------------------------


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, of a single host, and not another one in disguise."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    return parsed in _GLOBAL_V6 and not any(parsed in network for network in _REFUSED_V6)


def host_of(url: str) -> tuple[str, int]:
    """Host and port of a URL, as the client reads them. Raises RefusedUrlError.

    An IPv4 address counts only as four plain numbers: 127.1, 0x7f000001 and 2130706433 are names to one and addresses
    to another.
    """
    try:
        parsed = URL(url)
        host, port = (parsed.raw_host or "").lower(), parsed.port
    except ValueError:
        raise _not_valid() from None
    if parsed.scheme not in ("http", "https") or not host or not port:
        raise _not_valid()
    if "@" in parsed.raw_authority:
        raise RefusedUrlError("Input should be a URL without user and password", "url_credentials")
    if port < FIRST_FREE_PORT and port not in (80, 443):
        raise RefusedUrlError("Input should be a URL with the port 80, 443 or one from 1024 on", "url_port")
    if ":" in host:
        if _is_address(host, IPv6Address) and "%" not in host:
            return host, port
        raise _not_valid()
    looks_numeric = _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])
    is_fine = _is_address(host, IPv4Address) if looks_numeric else len(host) <= 253 and _NAME.fullmatch(host)
    if not is_fine:
        raise _not_valid()
    return host, port


def _not_valid() -> RefusedUrlError:
    return RefusedUrlError("Input should be a valid http or https URL", "url_parsing")


def _is_address(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


# --- the client --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `status` and `body` are None when no answer came, `error` when it was 2xx."""

    status: int | None
    body: str | None
    milliseconds: int
    error: str | None

    @property
    def is_success(self) -> bool:
        return self.error is None


class WebhookClient(AbstractResolver):
    """Sends webhooks. One for each process; made inside its event loop.

    `find_addresses` gives the addresses of a name; tests put their own in its place.
    """

    find_addresses: Resolve

    def __init__(self, *, allow_private: bool = False, tls: ssl.SSLContext | None = None):
        self.allow_private = allow_private
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
        self.find_addresses = partial(_look_up, self._threads)
        connector = aiohttp.TCPConnector(
            resolver=self,
            use_dns_cache=False,
            ssl=tls or True,
            force_close=True,
            limit=MAX_CONNECTIONS,
            socket_factory=self._make_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # No receiver learns what another one has set.
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is kept of an answer must not grow by unpacking it.
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"User-Agent": f"reos/{__version__}", "Accept-Encoding": "identity"},
            skip_auto_headers=("Accept",),
        )

    async def close(self) -> None:
        """Give up what is under way."""
        if not self._session.closed:
            await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, url: str) -> None:
        """Raises RefusedUrlError for a URL that would be refused now.

        A name that nobody knows at the moment is let through: it is judged again at each attempt.
        """
        host, port = host_of(url)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = [host] if _is_literal(host) else await self.find_addresses(host, port)
        except (OSError, TimeoutError):
            return
        if not all(map(self._is_welcome, addresses)):
            raise RefusedUrlError("Input should be a URL with a public address", "url_not_public")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send a JSON body, once. Whatever goes wrong is told in the outcome."""
        began = time.perf_counter()
        status, received, error = None, bytearray(), None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                host_of(url)
                async with self._session.post(
                    URL(url),
                    data=body,
                    headers={"Content-Type": "application/json", **headers},
                    allow_redirects=False,
                ) as response:
                    status = response.status
                    await _read_into(received, response)
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            # Once there is a status it says what came of it, also when the rest of the answer does not come.
            error = _describe(failure) if status is None else None
        if status is not None and not 200 <= status < 300:
            error = f"The endpoint answered {status}."
            if 300 <= status < 400:
                error += " Redirects are not followed."
        elapsed = round((time.perf_counter() - began) * 1000)
        return Outcome(status, None if status is None else _kept(bytes(received)), elapsed, error)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """For the connector: the addresses of a name. Raises RefusedAddressError when one of them is not welcome."""
        addresses = await self.find_addresses(host, port)
        if not addresses:
            raise OSError("The name has no address.")
        if not all(map(self._is_welcome, addresses)):
            raise RefusedAddressError("The address is not public.")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for one address; the last look at it, which also a literal one in a URL does not get around."""
        family, kind, protocol, _, (host, *_) = address
        if not self._is_welcome(host):
            raise RefusedAddressError("The address is not public.")
        return socket.socket(family, kind, protocol)

    def _is_welcome(self, address: str) -> bool:
        return self.allow_private or is_public(address)


async def _look_up(threads: ThreadPoolExecutor, host: str, port: int) -> list[str]:
    """The addresses of a name. The system's look-up blocks, in threads that nothing else waits for."""
    find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    found = await asyncio.get_running_loop().run_in_executor(threads, find)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _read_into(received: bytearray, response: aiohttp.ClientResponse) -> None:
    """The beginning of an answer; an endless one is left."""
    async for chunk in response.content.iter_any():
        received += chunk
        if len(received) >= MAX_READ_BYTES:
            return


def _kept(received: bytes) -> str:
    """The beginning of an answer as text that Postgres takes."""
    text = received[:MAX_KEPT_BYTES].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode()[:MAX_KEPT_BYTES].decode("utf-8", "ignore")


def _is_literal(host: str) -> bool:
    return _is_address(host, IPv4Address) or _is_address(host, IPv6Address)


def _describe(error: Exception) -> str:
    """Why no answer came, for the owner of the webhook: a sentence."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match error:
        case _ if isinstance(cause, RefusedAddressError):
            return "The address is not public."
        case TimeoutError():
            return f"There was no answer within {TIMEOUT_SECONDS:g} seconds."
        case RefusedUrlError():
            return "The URL is not one that webhooks go to."
        case aiohttp.ClientConnectorDNSError():
            return "The host name could not be resolved."
        case aiohttp.ClientConnectorCertificateError():
            return f"The certificate was not accepted: {getattr(cause, 'verify_message', '') or 'not valid'}."
        case aiohttp.ClientSSLError():
            return "TLS could not be agreed upon."
        case aiohttp.ClientConnectorError():
            return f"The connection failed: {_reason(cause)}."
        case aiohttp.ServerDisconnectedError():
            return "The endpoint closed the connection without an answer."
        case aiohttp.ClientResponseError():
            return "The answer was not HTTP."
    return "The connection broke."


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no reason was given"
