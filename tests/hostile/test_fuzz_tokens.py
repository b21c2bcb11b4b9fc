"""Tokens of all kinds, changed, cut, made up, or signed with the right key over the wrong things. No server is needed.

Only what the service has made opens anything; all else is one of its own refusals.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import assume, example, given
from hypothesis import strategies as st

from reos.auth import one_time
from reos.auth.signing import MAX_NUMBER, MAX_TEXT_BYTES, Signer
from reos.auth.tokens import (
    AccessClaims,
    RefreshClaims,
    issue_access_token,
    read_access_token,
    read_refresh_token,
    refresh_token,
)
from reos.errors import InvalidInputError, InvalidTokenError, TokenExpiredError
from reos.integrations import tracking
from reos.settings import Settings

pytestmark = [pytest.mark.unit, pytest.mark.property, pytest.mark.auth, pytest.mark.slow]

SECRET = "a secret of more than thirty-two bytes"
SETTINGS = Settings(_env_file=None, jwt_secret_key=SECRET)  # type: ignore[call-arg]
SIGNER = Signer(SECRET)
NUMBER = st.integers(0, MAX_NUMBER)
ANY_TEXT = st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode())

# How a token that somebody holds may be changed.
CHANGES = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 3), st.text("ABCabc019-_=.+/ \x00\xe9", max_size=3)),
    min_size=1,
    max_size=3,
)


def changed(token: str, changes: list[tuple[int, int, str]]) -> str:
    for place, length, put in changes:
        start = place % (len(token) + 1)
        token = token[:start] + put + token[start + length :]
    return token


# --- links, tickets and cursors ----------------------------------------------------------------------------------


def opened_one_time(purpose: str) -> Callable[[str], int | None]:
    def open_(token: str) -> int | None:
        refusal = InvalidTokenError if purpose == one_time.STREAM_TICKET else InvalidInputError
        try:
            return one_time.organization_of(SIGNER, purpose, token)
        except refusal:
            return None

    return open_


# What makes each kind of token, and what opens it.
KINDS: dict[str, tuple[Callable[[int, int], str], Callable[[str], Any]]] = {
    "open": (
        lambda a, b: SIGNER.seal(tracking.OPEN, a, b),
        lambda token: tracking.open_token(SIGNER, tracking.OPEN, token),
    ),
    "unsubscribe": (
        lambda a, b: SIGNER.seal(tracking.UNSUBSCRIBE, a, b),
        lambda token: tracking.open_token(SIGNER, tracking.UNSUBSCRIBE, token),
    ),
    "click": (
        lambda a, b: SIGNER.seal_text(tracking.CLICK, f"{a} {b} https://x.test/"),
        lambda token: tracking.open_click(SIGNER, token),
    ),
    "message": (
        lambda a, b: f"<{SIGNER.seal(tracking.MESSAGE, a, b)}@x.test>",
        lambda token: tracking.open_message_id(SIGNER, token),
    ),
    "refresh": (lambda a, b: refresh_token(SIGNER, a, b, 1), lambda token: read_refresh_token(SIGNER, token)),
    "cursor": (
        lambda a, b: SIGNER.seal_text("cursor", f'["digest",{a},{b}]'),
        lambda token: SIGNER.open_text("cursor", token),
    ),
    **{
        purpose: (
            lambda a, b, purpose=purpose: SIGNER.seal(purpose, a, b, 5, 6),
            opened_one_time(purpose),
        )
        for purpose in one_time.LIFETIMES
    },
}
KIND = st.sampled_from(sorted(KINDS))


@fuzz(300)
@given(kind=KIND, a=NUMBER, b=NUMBER, changes=CHANGES)
def test_a_changed_token_opens_nothing(kind: str, a: int, b: int, changes: list[tuple[int, int, str]]) -> None:
    make, open_ = KINDS[kind]
    token = make(a, b)
    assert open_(token) is not None
    other = changed(token, changes)
    assume(other != token)
    if kind == "message":
        # Its domain and brackets say nothing.
        assume(other.strip("<> \t").partition("@")[0] != token.strip("<>").partition("@")[0])
    assert open_(other) is None


@fuzz(200)
@given(kind=KIND, text=ANY_TEXT)
@example(kind="click", text="A" * 20_000)
@example(kind="message", text="<@>")
def test_a_made_up_token_opens_nothing(kind: str, text: str) -> None:
    assert KINDS[kind][1](text) is None


@fuzz(200)
@given(made=KIND, opened=KIND, a=NUMBER, b=NUMBER)
def test_a_token_is_good_for_its_purpose_alone(made: str, opened: str, a: int, b: int) -> None:
    assume(made != opened)
    token = KINDS[made][0](a, b)
    assert KINDS[opened][1](token) is None
    assert KINDS[opened][1](token.strip("<>").partition("@")[0]) is None


@fuzz(200)
@given(numbers=st.lists(NUMBER, max_size=6), text=st.text(st.characters(codec="utf-8"), max_size=80))
def test_what_was_sealed_comes_back(numbers: list[int], text: str) -> None:
    assert SIGNER.open("x", SIGNER.seal("x", *numbers)) == tuple(numbers)
    assert SIGNER.open_text("x", SIGNER.seal_text("x", text)) == text
    data = text.encode()
    assert len(data) <= MAX_TEXT_BYTES and SIGNER.decrypt("x", SIGNER.encrypt("x", data)) == data
    if len(numbers) == 3:
        assert read_refresh_token(SIGNER, refresh_token(SIGNER, *numbers)) == RefreshClaims(*numbers)


@fuzz(100)
@given(data=st.binary(max_size=60))
def test_what_was_not_encrypted_here_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        SIGNER.decrypt("x", data)
    sealed = SIGNER.encrypt("x", data)
    with pytest.raises(ValueError):
        SIGNER.decrypt("y", sealed)
    for place in (0, len(sealed) // 2, len(sealed) - 1):
        with pytest.raises(ValueError):
            SIGNER.decrypt("x", sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])


# --- access tokens -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ALGORITHMS = st.sampled_from(
    ("none", "None", "NONE", "nOnE", "", "HS256", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "PS512", "x")
)
HEADERS = st.fixed_dictionaries(
    {"alg": ALGORITHMS | JSON},
    optional={
        "typ": st.sampled_from(("JWT", "at+jwt", "")) | JSON,
        "kid": st.sampled_from(("../../dev/null", "' or 1=1 --", "a" * 3000, "\x00", "/etc/passwd")) | JSON,
        "jwk": JSON,
        "jku": st.just("https://x.test/keys"),
        "x5u": JSON,
        "crit": JSON,
        "b64": JSON,
        "zip": st.just("DEF"),
    },
)
IDS = st.integers(1, MAX_NUMBER)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "typ": st.just("access") | JSON,
        "sub": IDS.map(str) | JSON,
        "org": IDS | JSON,
        "sid": IDS | JSON,
        "iat": st.just(1_700_000_000) | JSON,
        "exp": st.sampled_from((4_000_000_000, 1, 2**63, 2**63 - 1, 4e9, "4000000000", 1e308)) | JSON,
        "nbf": st.sampled_from((1, 5_000_000_000)) | JSON,
        "aud": JSON,
        "iss": JSON,
        "jti": JSON,
    },
)
DIGESTS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: Any, claims: Any, secret: str, digest: str = "sha256") -> str:
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(hmac.digest(secret.encode(), text.encode(), digest))}"


def is_refused(token: str) -> bool:
    try:
        read_access_token(SETTINGS, token)
    except (InvalidTokenError, TokenExpiredError):
        return True
    return False


@fuzz(300)
@given(header=HEADERS, claims=CLAIMS, secret=st.sampled_from((SECRET, "", "another", SECRET + "!")))
@example(header={"alg": "none"}, claims={}, secret="")
def test_a_token_of_somebody_else_is_refused(header: dict[str, Any], claims: dict[str, Any], secret: str) -> None:
    """Whatever its header says, only our key and our algorithm count; and then it has to say all that ours say."""
    good = {"typ": "access", "sub": "1", "org": 2, "sid": 3, "iat": 1_700_000_000, "exp": 4_000_000_000}
    algorithm = header["alg"] if isinstance(header["alg"], str) else ""
    for given_claims in (good, good | claims, claims):
        for digest in {"sha256", DIGESTS.get(algorithm, "sha512")}:
            token = forged(header, given_claims, secret, digest)
            if (secret, algorithm, digest) != (SECRET, "HS256", "sha256"):
                assert is_refused(token)
            assert is_refused(token.rpartition(".")[0] + ".")
            assert is_refused(token.rpartition(".")[0])


@fuzz(300)
@given(claims=CLAIMS)
@example(claims={"typ": "access", "sub": "1", "org": True, "sid": 3, "iat": 1, "exp": 4_000_000_000})
@example(claims={"typ": "access", "sub": "1", "org": 2, "sid": 3, "iat": 1, "exp": 4_000_000_000, "nbf": 5_000_000_000})
def test_claims_are_taken_as_they_are_or_not_at_all(claims: dict[str, Any]) -> None:
    token = forged({"alg": "HS256", "typ": "JWT"}, claims, SECRET)
    if is_refused(token):
        return
    read = read_access_token(SETTINGS, token)
    assert read == AccessClaims(int(claims["sub"]), claims["org"], claims["sid"], claims["exp"])
    assert str(read.user_id) == claims["sub"] and claims["typ"] == "access" and read.expires_at > time.time()
    assert all(type(value) is int and value > 0 for value in (read.user_id, read.organization_id, read.session_id))


@fuzz(300)
@given(changes=CHANGES)
def test_a_changed_access_token_is_refused(changes: list[tuple[int, int, str]]) -> None:
    token = issue_access_token(SETTINGS, user_id=1, organization_id=2, session_id=3, now=time.time() - 1)
    assert not is_refused(token)
    other = changed(token, [(place * 3, length, put) for place, length, put in changes])
    assume(other != token)
    assert is_refused(other)


@fuzz(300)
@given(text=ANY_TEXT, parts=st.integers(0, 4))
@example(text="[" * 2900, parts=2)
@example(text='{"a":' * 580, parts=2)
@example(text="a" * 10**6, parts=2)
def test_no_text_breaks_the_reader_of_access_tokens(text: str, parts: int) -> None:
    assert is_refused(text)
    coded = encoded(text.encode(errors="surrogatepass"))
    assert is_refused(".".join([coded] * parts))
    assert is_refused(f"{coded}.{encoded(b'{}')}.x") and is_refused(f"{encoded(b'{}')}.{coded}.x")
