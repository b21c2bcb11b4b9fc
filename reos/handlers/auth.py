"""Registration, log-in, sessions and passwords."""

from __future__ import annotations

from sanic import Blueprint

bp = Blueprint("auth")
