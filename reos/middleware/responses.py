"""Responses of the API: there are many, and most of their headers are the same in all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import HTTPResponse
from sanic.helpers import has_message_body

# What a response may say otherwise than all the others.
VARIABLE = ("Cache-Control", "Cross-Origin-Resource-Policy", "Vary")

Pair = tuple[bytes, bytes]


class ApiResponse(HTTPResponse):
    """A response that takes its standing headers as one piece, encoded once for all.

    Header by header they would cost more than the statement that was answered.
    """

    __slots__ = ("standing",)

    def __init__(self, body: bytes | None, status: int, headers: dict[str, str], content_type: str | None = None):
        super().__init__(body, status, headers, content_type)
        self.standing: Pair | None = None

    @property
    def processed_headers(self) -> Any:
        """The headers as Sanic writes them, in pairs; the last one may hold many lines."""
        if self.content_type is not None and has_message_body(self.status):
            self.headers.setdefault("content-type", self.content_type)
        pairs = [
            (name.encode(), value.encode() if type(value) is str and value.isprintable() else _encode(value))
            for name, value in self.headers.items()
        ]
        if self.standing is not None:
            pairs.append(self.standing)
        return pairs


def standing_pair(headers: Mapping[str, str]) -> Pair:
    """The headers as one pair, which reads as lines of their own when it is written."""
    (first, value), *rest = headers.items()
    lines = "".join(f"\r\n{name}: {text}" for name, text in rest)
    return first.encode(), (value + lines).encode()


def _encode(value: Any) -> bytes:
    text = str(value)
    if not text.isprintable():
        # A line break would begin a header of somebody else's choice.
        raise ValueError("a header must not hold control characters")
    return text.encode()
