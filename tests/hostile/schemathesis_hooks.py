"""What schemathesis loads beside its settings: how it logs in, again and again, because it ends its own sessions."""

from __future__ import annotations

import builtins
import json
import os
import threading
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import schemathesis

# Python 3.11 has one counter for all threads that make syntax trees, and refuses the tree when it is off (CPython's
# issue 106905); schemathesis has several threads. So they take turns.
_compile, _turn = builtins.compile, threading.RLock()


def compile_in_turn(*arguments: Any, **options: Any) -> Any:
    with _turn:
        return _compile(*arguments, **options)


builtins.compile = compile_in_turn

BASE = os.environ["HOSTILE_URL"]
# One after the other: the run changes addresses and passwords of users, and takes their roles away.
ACCOUNTS: list[tuple[str, str]] = json.loads(os.environ["HOSTILE_ACCOUNTS"])


def log_in(email: str, password: str) -> str | None:
    """The access token; None where the service knows of no such user any more."""
    body = json.dumps({"email": email, "password": password}).encode()
    request = Request(f"{BASE}/api/v1/auth/login", data=body, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=60) as response:
            token: str = json.load(response)["access_token"]
    except HTTPError as error:
        if error.code in (401, 403, 429):
            return None
        raise
    return token


@schemathesis.auth(refresh_interval=1200)
class Admin:
    """A token is asked for at the start, and whenever an answer is 401; then the request is sent once more."""

    def get(self, case: Any, context: Any) -> str:
        while ACCOUNTS:
            if token := log_in(*ACCOUNTS[0]):
                return token
            ACCOUNTS.pop(0)
        raise AssertionError("every account of the run has been changed: make more")

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
