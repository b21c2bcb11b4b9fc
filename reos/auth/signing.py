"""Signed tokens, keyed digests and encryption, all from the one secret of the service.

Every purpose has keys of its own, derived by HKDF-SHA256 (RFC 5869), so that what is made for one purpose
is worth nothing for another. Tokens are URL-safe base64 without padding (RFC 4648, section 5): an
HMAC-SHA256 cut to 128 bits, then the payload, which can be read by everyone but not changed.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from os import urandom

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12
MAX_NUMBER = 2**63 - 1  # what a bigint holds
MAX_TEXT_BYTES = 12000
MAX_TOKEN_LENGTH = 16384  # characters; longer than any token made here


class Signer:
    """Signs, digests and encrypts. A purpose is a constant of the code, never a client's text."""

    def __init__(self, secret: str):
        """`secret` is the service's signing secret, any non-empty text. Raises ValueError when it is empty."""
        if not secret:
            raise ValueError("the signing secret must not be empty")
        self._secret = secret.encode()
        self._keys: dict[tuple[str, str], bytes] = {}

    def seal(self, purpose: str, *numbers: int) -> str:
        """A token that carries the numbers. Raises ValueError for one that is negative or beyond 63 bits."""
        return self._sign("numbers", purpose, b"".join(_encode_number(number) for number in numbers))

    def open(self, purpose: str, token: str) -> tuple[int, ...] | None:
        """The numbers of a token that `seal` made for this purpose; None for everything else."""
        payload = self._verify("numbers", purpose, token)
        return None if payload is None else _decode_numbers(payload)

    def seal_text(self, purpose: str, text: str) -> str:
        """A token that carries a text. Raises ValueError for one with lone surrogates or of more than 12,000 bytes."""
        payload = text.encode()
        if len(payload) > MAX_TEXT_BYTES:
            raise ValueError("the text is too long for a token")
        return self._sign("text", purpose, payload)

    def open_text(self, purpose: str, token: str) -> str | None:
        """The text of a token that `seal_text` made for this purpose; None for everything else."""
        payload = self._verify("text", purpose, token)
        return None if payload is None else payload.decode()

    def mac(self, purpose: str, *parts: bytes) -> bytes:
        """HMAC-SHA256 (32 bytes) over the parts, each with its length, so that ("a", "bc") is not ("ab", "c")."""
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key("mac", purpose), message, "sha256")

    def encrypt(self, purpose: str, data: bytes) -> bytes:
        """AES-256-GCM: a random nonce, then the ciphertext with its tag."""
        nonce = urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key("encryption", purpose)).encrypt(nonce, data, None)

    def decrypt(self, purpose: str, data: bytes) -> bytes:
        """What `encrypt` was given. Raises ValueError when the data was not made by it for this purpose."""
        nonce, sealed = data[:NONCE_BYTES], data[NONCE_BYTES:]
        if len(sealed) < TAG_BYTES:
            raise ValueError("the encrypted data is too short")
        try:
            return AESGCM(self._key("encryption", purpose)).decrypt(nonce, sealed, None)
        except InvalidTag:
            raise ValueError("the encrypted data is not authentic") from None

    def _sign(self, kind: str, purpose: str, payload: bytes) -> str:
        tag = hmac.digest(self._key(kind, purpose), payload, "sha256")[:TAG_BYTES]
        return urlsafe_b64encode(tag + payload).rstrip(b"=").decode()

    def _verify(self, kind: str, purpose: str, token: str) -> bytes | None:
        data = _decode_base64(token)
        if data is None:
            return None
        tag, payload = data[:TAG_BYTES], data[TAG_BYTES:]
        expected = hmac.digest(self._key(kind, purpose), payload, "sha256")[:TAG_BYTES]
        return payload if hmac.compare_digest(tag, expected) else None

    def _key(self, kind: str, purpose: str) -> bytes:
        key = self._keys.get((kind, purpose))
        if key is None:
            info = f"reos/{kind}/{purpose}".encode()
            key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._secret)
            self._keys[kind, purpose] = key
        return key


def _encode_number(number: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the top bit says that more follow."""
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{number} is not a non-negative 64-bit integer")
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _decode_numbers(payload: bytes) -> tuple[int, ...]:
    """The numbers of an authentic payload, so of one that `_encode_number` wrote."""
    numbers, number, shift = [], 0, 0
    for byte in payload:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte <= 0x7F:
            numbers.append(number)
            number, shift = 0, 0
    return tuple(numbers)


def _decode_base64(token: str) -> bytes | None:
    """The bytes of a canonical token. Python's decoder skips foreign characters and ignores spare bits, so
    the result is encoded again and compared: one token has one spelling.
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        return None
    try:
        data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return None
    return data if urlsafe_b64encode(data).rstrip(b"=").decode() == token else None
