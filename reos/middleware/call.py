"""What a handler is given, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from sanic import Request

from reos import encoding
from reos.auth.guard import Principal
from reos.db import Connection
from reos.errors import AuthenticationError, PreconditionFailedError
from reos.middleware.bodies import UploadedFile
from reos.middleware.requests import client_address
from reos.queries.events import AuditEntry, Event

if TYPE_CHECKING:
    from reos.context import Context


def etag_of(body: bytes) -> str:
    """The strong entity tag of a JSON body: a digest of its bytes."""
    return f'"{sha256(body).hexdigest()[:32]}"'


def tag_matches(header: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match list names the tag. Weak tags in it never match strongly."""
    return any(part.strip() == etag for part in header.split(","))


def is_known(request: Request, etag: str) -> bool:
    """Whether If-None-Match says that the client has this already. There weak tags match too (RFC 9110, 13.1.2)."""
    values = request.headers.getall("if-none-match", None)
    if not values:
        return False
    header = ",".join(values)
    return header.strip() == "*" or tag_matches(header.replace("W/", ""), etag)


class Pages(Protocol):
    """A body that is read page by page, each in a short transaction that has ended before the page is sent."""

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after the page that was read last."""

    async def read(self, conn: Connection) -> None:
        """Read the next page."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the page that was read last, once."""


@dataclass(slots=True)
class Answer:
    """A status, the JSON content (None: no body) and headers; or a body in pages, of which the first has been read."""

    status: int
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pages: Pages | None = None


NO_CONTENT = Answer(204)


@dataclass(slots=True)
class Call:
    """One request on its way: who asks, the connection inside its transaction, and what it collects.

    `audit()` and `publish()` only collect; the pipeline writes both in the transaction's last statement.
    """

    request: Request
    context: Context
    principal: Principal | None = None
    connection: Connection | None = None
    file: UploadedFile | None = None
    prepared: Any = None
    audits: list[AuditEntry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    is_precondition_checked: bool = False

    @property
    def conn(self) -> Connection:
        """The connection inside the request's transaction."""
        assert self.connection is not None, "this endpoint has no transaction at this point"
        return self.connection

    @property
    def user_id(self) -> int:
        if self.principal is None:
            raise AuthenticationError
        return self.principal.user_id

    @property
    def session_id(self) -> int:
        if self.principal is None:
            raise AuthenticationError
        return self.principal.session_id

    @property
    def client_address(self) -> str:
        """The client's address, through as many proxies as PROXIES_COUNT says."""
        return client_address(self.request)

    @property
    def user_agent(self) -> str | None:
        agent = self.request.headers.get("user-agent")
        return "".join(c for c in agent if c.isprintable())[:500] if agent else None

    def audit(
        self,
        action: str,
        resource_type: str,
        resource_id: int | None,
        changes: dict[str, list[Any]] | None = None,
        *,
        user_id: int | None = None,
    ) -> None:
        """Collect an audit row; the user is the principal's unless given."""
        self.audits.append(
            AuditEntry(
                action=action,
                resource_type=resource_type,
                resource_id=resource_id,
                changes=changes or {},
                user_id=user_id or (self.principal.user_id if self.principal else None),
                ip_address=self.client_address,
                user_agent=self.user_agent,
                request_id=self.request.ctx.request_id,
            )
        )

    def publish(self, type: str, resource_id: int | None, data: Any) -> None:
        """Collect an event; the resource's type is the first part of the event's."""
        self.events.append(Event(type=type, resource_type=type.partition(".")[0], resource_id=resource_id, data=data))

    def if_match(self, current: Mapping[str, Any] | Any) -> None:
        """Compare If-Match with what GET would give now. The row must be locked before.

        Raises PreconditionFailedError (412).
        """
        self.is_precondition_checked = True
        wanted = self.wanted_tags
        if wanted not in (None, "*") and not tag_matches(wanted, etag_of(encoding.dumps(current))):
            raise PreconditionFailedError

    @property
    def wanted_tags(self) -> str | None:
        """If-Match: a list of tags, which may be empty and then matches nothing, or `*`; None without the header."""
        values = self.request.headers.getall("if-match", None)
        return ",".join(values).strip() if values else None

    def created(self, content: Any, location: str) -> Answer:
        """201 with the whole resource and where it is."""
        return Answer(201, content, {"Location": location})
