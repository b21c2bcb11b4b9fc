"""Passwords: argon2id off the event loop, and the policy.

The parameters are the floor of OWASP's Password Storage Cheat Sheet for argon2id (RFC 9106). A hash takes some
18 ms and 19 MiB; the library releases the GIL meanwhile, and two threads are as fast as more.
"""

from __future__ import annotations

import asyncio
import gzip
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from reos.errors import OverloadedError
from reos.settings import Settings

MEMORY_KIB = 19456
PASSES = 2
LANES = 1
SALT_BYTES = 16
HASH_BYTES = 32

THREADS = 2
MAX_WAITING = 500  # some seven seconds of work for both threads
RETRY_SECONDS = 5

MAX_LENGTH = 128  # characters

_LISTS = ("common_passwords.txt.gz", "common_password_variants.txt.gz")

_hasher = PasswordHasher(
    time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, hash_len=HASH_BYTES, salt_len=SALT_BYTES
)
_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
_waiting = 0

T = TypeVar("T")


def _encode(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


# Nobody knows a password with this hash; checking one against it costs what checking against a real one does.
_DUMMY_HASH = (
    f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${_encode(bytes(SALT_BYTES))}${_encode(bytes(HASH_BYTES))}"
)


async def hash_password(password: str) -> str:
    """The argon2id hash in its usual text form. The caller has asked `password_problems` before.

    Raises OverloadedError (503) when too many passwords are waiting.
    """
    return await _run(lambda: _hasher.hash(password))


async def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is the hashed one. Without a hash it is false and takes as long.

    Raises OverloadedError (503) when too many passwords are waiting.
    """
    if len(password) > MAX_LENGTH or not _is_text(password):
        password_hash, password = None, ""  # no such password was ever hashed
    return await _run(lambda: _matches(password_hash or _DUMMY_HASH, password))


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def password_problems(password: str, settings: Settings) -> list[tuple[str, str]]:
    """What the policy has against a new password, as stable codes and sentences; empty: nothing."""
    if len(password) > MAX_LENGTH:
        return [("password_too_long", f"must have at most {MAX_LENGTH} characters")]
    if not _is_text(password):
        return [("password_characters", "must not contain control characters or broken Unicode")]
    rules = (
        (len(password) < settings.password_min_length, "password_too_short", _at_least(settings.password_min_length)),
        (
            settings.password_require_uppercase and not any(c.isupper() for c in password),
            "password_no_uppercase",
            "must contain an upper-case letter",
        ),
        (
            settings.password_require_lowercase and not any(c.islower() for c in password),
            "password_no_lowercase",
            "must contain a lower-case letter",
        ),
        (
            settings.password_require_digits and not any(c.isdigit() for c in password),
            "password_no_digit",
            "must contain a digit",
        ),
        (
            settings.password_require_special and all(c.isalnum() for c in password),
            "password_no_special",
            "must contain a special character",
        ),
        (is_common(password), "password_too_common", "is one of the passwords that are tried first"),
    )
    return [(code, message) for is_broken, code, message in rules if is_broken]


def is_common(password: str) -> bool:
    """Whether the password, in whatever case, is on the list of common ones."""
    # A search through 700 kB takes less than a millisecond, a set of 60,000 texts several megabytes a process.
    return f"\n{password.casefold()}\n".encode(errors="replace") in _common_passwords()


@cache
def _common_passwords() -> bytes:
    """All common passwords in lower case, each between two line ends."""
    folder = Path(__file__).parent
    texts = [gzip.decompress((folder / name).read_bytes()).decode().strip("\n") for name in _LISTS]
    return "\n".join(["", *texts, ""]).casefold().encode()


def _at_least(length: int) -> str:
    return f"must have at least {length} character{'' if length == 1 else 's'}"


def _is_text(password: str) -> bool:
    """Whether there are neither control characters (NUL among them) nor lone surrogates in it."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in password)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except VerifyMismatchError:
        return False


async def _run(work: Callable[[], T]) -> T:
    """Run it in one of the threads. A waiting caller that goes away takes its work out of the queue."""
    global _waiting
    if _waiting >= MAX_WAITING:
        raise OverloadedError(headers={"Retry-After": str(RETRY_SECONDS)})
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_executor, work)
    finally:
        _waiting -= 1
