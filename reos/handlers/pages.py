"""The few pages for people: verification, password reset, the outbox."""

from __future__ import annotations

from sanic import Blueprint

bp = Blueprint("pages")
