"""Signed tokens, keyed digests and encryption."""

from __future__ import annotations

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from reos.auth.signing import MAX_NUMBER, MAX_TEXT_BYTES, MAX_TOKEN_LENGTH, Signer

pytestmark = [pytest.mark.unit, pytest.mark.auth]

SECRET = "a secret of more than thirty-two bytes"

NOT_TOKENS = ["", "a", "aaa=", "=", "é" * 24, "\ud800", "\x00" * 24, " " * 24, "A" * 22, "A" * (MAX_TOKEN_LENGTH + 1)]


@pytest.fixture
def signer() -> Signer:
    return Signer(SECRET)


@pytest.mark.property
def test_numbers_come_back_as_they_were(signer: Signer) -> None:
    source = random.Random(1)
    for _ in range(500):
        numbers = tuple(source.getrandbits(source.randint(0, 63)) for _ in range(source.randint(0, 6)))
        assert signer.open("file", signer.seal("file", *numbers)) == numbers
    assert signer.open("file", signer.seal("file", 0, MAX_NUMBER, 127, 128)) == (0, MAX_NUMBER, 127, 128)


def test_a_token_is_the_same_whenever_it_is_made(signer: Signer) -> None:
    assert signer.seal("file", 1, 2) == Signer(SECRET).seal("file", 1, 2)
    assert signer.seal("file", 1, 2) != Signer(SECRET + "!").seal("file", 1, 2)


def test_tokens_are_short_and_safe_in_addresses(signer: Signer) -> None:
    token = signer.seal("file", 12, 3456)
    assert len(token) == 26
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("number", [-1, 2**63])
def test_other_numbers_are_refused(signer: Signer, number: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        signer.seal("file", number)


def test_a_token_is_good_for_its_purpose_alone(signer: Signer) -> None:
    token = signer.seal("file", 1)
    assert signer.open("unsubscribe", token) is None
    assert signer.open_text("file", token) is None
    assert signer.open("file", signer.seal_text("file", "\x01")) is None
    assert Signer("another secret of the same service").open("file", token) is None


@pytest.mark.parametrize("token", NOT_TOKENS)
def test_what_is_no_token_gives_none(signer: Signer, token: str) -> None:
    assert signer.open("file", token) is None
    assert signer.open_text("cursor", token) is None


@pytest.mark.property
def test_a_changed_token_gives_none(signer: Signer) -> None:
    token = signer.seal("file", 300, 7)
    data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert signer.open("file", urlsafe_b64encode(changed).rstrip(b"=").decode()) is None
    for spelling in (token + "=", token + "\n", " " + token, token[:-1], token + "A", token[:5] + "!" + token[5:]):
        assert signer.open("file", spelling) is None


def test_a_token_has_one_spelling(signer: Signer) -> None:
    # 17 bytes leave four spare bits in the last character, which a lenient decoder would ignore.
    token = signer.seal("file", 1)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = [letter for letter in alphabet if signer.open("file", token[:-1] + letter) is not None]
    assert accepted == [token[-1]]


@pytest.mark.parametrize("text", ["", "a", '["x", null]', "Zoë 🏠", "\x00", "é" * (MAX_TEXT_BYTES // 2)])
def test_texts_come_back_as_they_were(signer: Signer, text: str) -> None:
    assert signer.open_text("cursor", signer.seal_text("cursor", text)) == text


@pytest.mark.parametrize("text", ["\ud800", "x" * (MAX_TEXT_BYTES + 1)])
def test_a_text_that_no_token_can_carry_is_refused(signer: Signer, text: str) -> None:
    with pytest.raises(ValueError):
        signer.seal_text("cursor", text)


def test_digests_tell_purposes_and_parts_apart(signer: Signer) -> None:
    digests = {
        signer.mac("a", b"ab", b"c"),
        signer.mac("a", b"a", b"bc"),
        signer.mac("a", b"abc"),
        signer.mac("a", b"abc", b""),
        signer.mac("a"),
        signer.mac("b", b"abc"),
    }
    assert len(digests) == 6
    assert {len(digest) for digest in digests} == {32}
    assert signer.mac("a", b"abc") == Signer(SECRET).mac("a", b"abc")


def test_encrypted_data_is_read_for_its_purpose_alone(signer: Signer) -> None:
    for data in (b"", b"x", bytes(100_000)):
        sealed = signer.encrypt("answers", data)
        assert signer.decrypt("answers", sealed) == data
        assert signer.encrypt("answers", data) != sealed
        with pytest.raises(ValueError):
            signer.decrypt("webhooks", sealed)


def test_changed_encrypted_data_is_refused(signer: Signer) -> None:
    sealed = signer.encrypt("answers", b"secret")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ValueError):
            signer.decrypt("answers", bytes(changed))
        with pytest.raises(ValueError):
            signer.decrypt("answers", sealed[:position])


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError):
        Signer("")
