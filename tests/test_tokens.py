"""Access tokens and refresh tokens."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from reos.auth.signing import Signer
from reos.auth.tokens import (
    AccessClaims,
    RefreshClaims,
    issue_access_token,
    read_access_token,
    read_refresh_token,
    refresh_hash,
    refresh_token,
)
from reos.errors import InvalidTokenError, TokenExpiredError
from reos.settings import Settings

pytestmark = [pytest.mark.unit, pytest.mark.auth]

SECRET = "a secret of more than sixty-four bytes, so that it is long enough for HS512 too"
SETTINGS = Settings.model_construct(jwt_secret_key=SECRET, jwt_access_token_expire_minutes=30)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None leaves one out."""
    now = int(time.time())
    good = {"typ": "access", "sub": "1", "org": 2, "sid": 3, "iat": now, "exp": now + 60, **changes}
    return {name: value for name, value in good.items() if value is not None}


def signed(**changes: Any) -> str:
    return jwt.encode(claims(**changes), SECRET, algorithm="HS256")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_an_access_token_says_what_it_was_given(algorithm: str) -> None:
    settings = SETTINGS.model_copy(update={"jwt_algorithm": algorithm})
    now = time.time()
    token = issue_access_token(settings, user_id=2**63 - 1, organization_id=2, session_id=3, now=now)
    assert read_access_token(settings, token) == AccessClaims(2**63 - 1, 2, 3, int(now) + 1800)


def test_an_access_token_ends_with_its_time() -> None:
    numbers = {"user_id": 1, "organization_id": 2, "session_id": 3}
    assert read_access_token(SETTINGS, issue_access_token(SETTINGS, **numbers, now=time.time() - 1790))
    with pytest.raises(TokenExpiredError):
        read_access_token(SETTINGS, issue_access_token(SETTINGS, **numbers, now=time.time() - 1801))


def test_a_host_whose_clock_is_behind_takes_the_token() -> None:
    assert read_access_token(SETTINGS, signed(iat=int(time.time()) + 30)).user_id == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": None},
        {"typ": "refresh"},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"org": None},
        {"sid": None},
        {"sub": "0"},
        {"sub": "-1"},
        {"sub": "01"},
        {"sub": "1.0"},
        {"sub": " 1"},
        {"sub": "١"},
        {"sub": "a"},
        {"sub": ""},
        {"sub": str(2**63)},
        {"sub": "9" * 5000},
        {"org": 0},
        {"org": -1},
        {"org": True},
        {"org": 2.0},
        {"org": "2"},
        {"org": 2**63},
        {"sid": [3]},
        {"exp": "soon"},
        {"nbf": 2**40},  # thousands of years from now, in each process the same
        {"aud": "reos"},  # of somebody who names an audience; ours name none
    ],
    ids=lambda changes: "-".join(f"{name}={str(value)[:20]}" for name, value in changes.items()),
)
def test_other_claims_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        read_access_token(SETTINGS, signed(**changes))


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: "",
        lambda: "a.b.c",
        lambda: "....",
        lambda: "\ud800.\x00.é",
        lambda: "a" * 10**6,
        lambda: f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
        lambda: jwt.encode(claims(), SECRET, algorithm="HS512"),
        lambda: jwt.encode(claims(), SECRET + "!", algorithm="HS256"),
        lambda: signed()[:-2],
        lambda: jwt.encode(claims(), SECRET, algorithm="HS256", headers={"crit": ["x"], "x": 1}),
        lambda: Signer(SECRET).seal("refresh-token", 1, 2, 3),
    ],
    ids=["empty", "no base64", "dots", "foreign", "long", "none", "HS512", "secret", "cut", "crit", "sealed"],
)
def test_other_tokens_are_refused(make: Callable[[], str]) -> None:
    with pytest.raises(InvalidTokenError):
        read_access_token(SETTINGS, make())


def test_refresh_tokens_are_derived() -> None:
    token = refresh_token(Signer(SECRET), 1, 2, 3)
    assert token == refresh_token(Signer(SECRET), 1, 2, 3)
    assert read_refresh_token(Signer(SECRET), token) == RefreshClaims(1, 2, 3)
    others = [refresh_token(Signer(SECRET), *numbers) for numbers in ((1, 2, 4), (1, 3, 3), (2, 2, 3), (2, 1, 3))]
    assert len({token, *others}) == 5
    assert len({refresh_hash(token), *map(refresh_hash, others)}) == 5
    assert len(refresh_hash(token)) == 32


@pytest.mark.parametrize("token", ["", "x", "é", "\ud800", signed(), Signer(SECRET).seal("refresh-token", 1, 2)])
def test_what_is_no_refresh_token_gives_none(token: str) -> None:
    assert read_refresh_token(Signer(SECRET), token) is None
    assert read_refresh_token(Signer(SECRET), Signer(SECRET).seal("file", 1, 2, 3)) is None
