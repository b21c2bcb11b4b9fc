"""HTTP as the tour speaks it, with the standard library alone: each request is shown with its answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import SplitResult, urlsplit

from screen import Screen, summary

PREFIX = "/api/v1"
TIMEOUT = 30.0  # seconds
EVENT_SECONDS = 30.0  # that an event may take to arrive
# What is worth showing of a request, and of an answer.
REQUEST_HEADERS = ("Authorization", "Idempotency-Key", "If-Match", "If-None-Match")
ANSWER_HEADERS = ("Location", "ETag", "Idempotency-Replayed", "Retry-After")


class TourError(Exception):
    """The tour cannot go on. The message is one sentence that says why."""


@dataclass
class Person:
    """Somebody who is logged in."""

    email: str
    password: str
    access_token: str = ""
    refresh_token: str = ""

    def take(self, tokens: Mapping[str, Any]) -> None:
        self.access_token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Upload:
    """A file and fields, as a form sends them."""

    file_name: str
    content: bytes
    content_type: str
    fields: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, str]:
        """The body and its content type."""
        boundary = "tour-of-real-estate-os"
        lines = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in self.fields.items()
        ]
        disposition = f'form-data; name="file"; filename="{self.file_name}"'
        lines.append(f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {self.content_type}\r\n\r\n")
        body = "".join(lines).encode() + self.content + f"\r\n--{boundary}--\r\n".encode()
        return body, f"multipart/form-data; boundary={boundary}"


class Service:
    """The running service."""

    def __init__(self, url: str, screen: Screen):
        self.url = url.rstrip("/")
        self.screen = screen
        parts = urlsplit(self.url)
        if not _is_address(parts):
            raise TourError(f"{url} is not the address of a service: it should be like http://127.0.0.1:8000.")
        self._class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._path = parts.netloc, parts.path

    def connect(self) -> HTTPConnection:
        return self._class(self._host, timeout=TIMEOUT)

    def get(self, path: str, who: Person | None = None, **options: Any) -> Answer:
        return self.send("GET", path, who, **options)

    def post(self, path: str, who: Person | None = None, body: Any = None, *, status: int = 201, **more: Any) -> Answer:
        return self.send("POST", path, who, body, status=status, **more)

    def patch(self, path: str, who: Person | None, body: Any, **options: Any) -> Answer:
        return self.send("PATCH", path, who, body, **options)

    def send(
        self,
        method: str,
        path: str,
        who: Person | None = None,
        body: Any = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        shown: tuple[str, ...] = (),
    ) -> Answer:
        """Send, show both, and return the answer, which must have this status. `shown` are its fields worth seeing."""
        answer = self._exchange(method, PREFIX + path, who, body, headers or {}, shown)
        if answer.status == 401 and who is not None and who.refresh_token:
            self.screen.note("The access token has expired while the tour paused; the refresh token gets another.")
            renewed = self._exchange(
                "POST", f"{PREFIX}/auth/refresh", None, {"refresh_token": who.refresh_token}, {}, ("token_type",)
            )
            if renewed.status == 200:
                who.take(renewed.json)
                answer = self._exchange(method, PREFIX + path, who, body, headers or {}, shown)
        if answer.status != status:
            raise TourError(f"{method} {path} answered {answer.status} where {status} was expected.{_reason(answer)}")
        return answer

    def page(self, path: str) -> str | None:
        """A page of the service, not shown; None when there is no such page."""
        _, answer = self._patiently(lambda: self._raw("GET", path, {}, None))
        return answer.body.decode() if answer.status == 200 else None

    def health(self) -> Answer:
        """The state of the service, in whatever state it is. Raises TourError when nothing is there."""
        try:
            return self._raw("GET", "/health", {}, None)[1]
        except TourError:
            raise TourError(
                f"No service answers at {self.url}. Start one with `make run`, or name another with --url."
            ) from None

    def _exchange(
        self,
        method: str,
        path: str,
        who: Person | None,
        body: Any,
        headers: Mapping[str, str],
        shown: tuple[str, ...],
    ) -> Answer:
        sent = dict(headers)
        if who is not None:
            sent["Authorization"] = f"Bearer {who.access_token}"
        content, told = None, ""
        if isinstance(body, Upload):
            content, sent["Content-Type"] = body.encoded()
            told = f"(form) {body.fields}, file {body.file_name}, {len(body.content)} bytes"
        elif body is not None:
            content, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
            told = json.dumps(body, ensure_ascii=False)
        with self.screen.block():
            visible = {name: sent[name] for name in REQUEST_HEADERS if name in sent}
            self.screen.request(method, path, visible, told)
            seconds, answer = self._patiently(lambda: self._raw(method, path, sent, content))
            self._show(answer, seconds, shown)
        return answer

    def _show(self, answer: Answer, seconds: float, shown: tuple[str, ...]) -> None:
        visible = {name: value for name in ANSWER_HEADERS if (value := answer.headers.get(name.lower()))}
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        if is_json and answer.status >= 400:
            shown = ("error", "type", "message", *(("details", "errors", "field") if answer.status == 422 else ()))
        told = summary(answer.json, shown=shown) if is_json and answer.body else ""
        self.screen.answer(answer.status, REASONS.get(answer.status, ""), seconds, visible, told)

    def _patiently(self, send: Callable[[], tuple[float, Answer]]) -> tuple[float, Answer]:
        """Send, and again after as long as the service asks to wait."""
        while True:
            seconds, answer = send()
            told = answer.headers.get("retry-after", "")
            if answer.status not in (429, 503) or not told.isdigit():
                return seconds, answer
            wait = int(told)
            why = "these are too many requests" if answer.status == 429 else "it is busy"
            self.screen.note(f"The service says that {why} ({answer.status}) and to wait {wait} s: waiting.")
            time.sleep(wait)

    def _raw(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[float, Answer]:
        started = time.perf_counter()
        connection = self.connect()
        try:
            connection.request(method, self._path + path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            answer = Answer(response.status, _lower(response), response.read())
        except (OSError, HTTPException) as error:
            raise TourError(f"The service at {self.url} does not answer: {error or type(error).__name__}.") from None
        finally:
            connection.close()
        return time.perf_counter() - started, answer


def _is_address(parts: SplitResult) -> bool:
    try:
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # The port is no number.
        return False


def _lower(response: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _reason(answer: Answer) -> str:
    """What an answer that was not expected says of itself."""
    with suppress(ValueError, KeyError, TypeError):
        return f" It says: {answer.json['error']['message']}"
    return ""


REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 409: "Conflict", 412: "Precondition Failed", 422: "Unprocessable Content",
    429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class Events:
    """The live stream, read beside the tour."""

    def __init__(self, service: Service, who: Person):
        self._arrived: list[tuple[str, Any]] = []
        self._news = threading.Condition()
        self._ended = False
        self._screen = service.screen
        connection = service.connect()
        path = f"{urlsplit(service.url).path}{PREFIX}/sse/stream?last_event_id=0"
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {who.access_token}"})
            self._socket = connection.sock
            self._response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise TourError(f"The stream of events did not open: {error}.") from None
        if self._response.status != 200:
            raise TourError(f"GET /sse/stream answered {self._response.status} where 200 was expected.")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, event_type: str, **fields: Any) -> Any:
        """The data of the event of this type with these values, which has arrived or does so soon."""

        def found() -> list[Any]:
            return [
                data
                for kind, data in self._arrived
                if kind == event_type and all(data.get(name) == value for name, value in fields.items())
            ]

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, EVENT_SECONDS)
            if found():
                return found()[-1]
        if self._ended:
            raise TourError(f"The stream of events has ended before {event_type} came.")
        raise TourError(f"The event {event_type} did not come within {EVENT_SECONDS:.0f} s; does a worker run?")

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)
        self._thread.join(5)

    def _read(self) -> None:
        with suppress(OSError, HTTPException, ValueError):
            for line in self._response:
                if line.startswith(b"data: "):
                    self._take(json.loads(line.removeprefix(b"data: ")))
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _take(self, event: Mapping[str, Any]) -> None:
        data = event.get("data") or {}
        self._screen.event(event["type"], data)
        with self._news:
            self._arrived.append((event["type"], data))
            self._news.notify_all()
