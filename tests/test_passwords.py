"""Hashing, the policy, and what slows down guessing."""

from __future__ import annotations

import asyncio
import time

import pytest
from argon2 import PasswordHasher

from reos.auth import passwords
from reos.auth.login_guard import LoginGuard, too_early, waits
from reos.auth.passwords import hash_password, is_common, needs_rehash, password_problems, verify_password
from reos.errors import OverloadedError, RateLimitExceededError
from reos.settings import Settings

pytestmark = [pytest.mark.unit, pytest.mark.auth]

SETTINGS = Settings.model_construct()


def codes(password: str, **settings: object) -> list[str]:
    return [code for code, _ in password_problems(password, SETTINGS.model_copy(update=settings))]


@pytest.mark.parametrize("password", ["Tr0ub4dor&3", " Leading 1!x", "x1!X ", "Пароль-нов1", "Aa1 " * 32, "🏠Aa1bcdef"])
async def test_a_hashed_password_is_verified_to_the_letter(password: str) -> None:
    password_hash = await hash_password(password)
    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not needs_rehash(password_hash)
    assert await hash_password(password) != password_hash
    assert await verify_password(password_hash, password)
    for other in (password + " ", password.strip() + "?", password.swapcase() + "!", password[:-1], ""):
        assert not await verify_password(password_hash, other)


@pytest.mark.parametrize("password", ["", "x", "nul\x00", "\ud800", "x" * 129, "x" * 10**6])
async def test_no_password_is_right_without_a_hash(password: str) -> None:
    assert not await verify_password(None, password)
    assert not await verify_password(await hash_password("something"), password)


async def test_a_missing_hash_costs_what_a_wrong_password_costs() -> None:
    password_hash = await hash_password("something")
    spent = {True: float("inf"), False: float("inf")}
    # The least of many is what the work costs, and the rest what else the machine does: on a busy one it takes more.
    for count in range(1, 101):
        for is_known in (True, False):
            began = time.process_time()
            await verify_password(password_hash if is_known else None, "anything")
            spent[is_known] = min(spent[is_known], time.process_time() - began)
        if count >= 15 and abs(spent[True] - spent[False]) < 0.2 * spent[True]:
            return
    pytest.fail(f"with a hash {spent[True]} s, without {spent[False]} s")


def test_old_parameters_are_seen() -> None:
    assert needs_rehash(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x"))


async def test_the_event_loop_goes_on_while_passwords_are_hashed() -> None:
    hashing = asyncio.gather(*(hash_password("something") for _ in range(20)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100


async def test_too_many_waiting_passwords_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 3)
    results = await asyncio.gather(*(verify_password(None, "x") for _ in range(5)), return_exceptions=True)
    assert results[:3] == [False] * 3
    assert all(isinstance(result, OverloadedError) and result.headers["Retry-After"] for result in results[3:])
    assert await verify_password(None, "x") is False, "their places are free again"


async def test_a_caller_that_goes_away_gives_up_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 10)
    callers = [asyncio.create_task(hash_password("something")) for _ in range(10)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert not any(await asyncio.gather(*(verify_password(None, "x") for _ in range(10))))


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("Tr0ub4dor&3", []),
        ("Tr0ub4 r", []),  # a space is a special character
        ("Ünïcode-9", []),
        ("Aa1!" * 32, []),
        ("Aa1!x7$", ["password_too_short"]),
        ("Aa1!" * 32 + "x", ["password_too_long"]),
        ("x" * 10**6, ["password_too_long"]),
        ("tr0ub4dor&3", ["password_no_uppercase"]),
        ("TR0UB4DOR&3", ["password_no_lowercase"]),
        ("Troubador&&", ["password_no_digit"]),
        ("Tr0ub4dor33", ["password_no_special"]),
        ("", [f"password_{x}" for x in ("too_short", "no_uppercase", "no_lowercase", "no_digit", "no_special")]),
        ("Tr0ub4dor&\x00", ["password_characters"]),
        ("Tr0ub4dor&\n", ["password_characters"]),
        ("Tr0ub4dor&\ud800", ["password_characters"]),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else "",
)
def test_the_policy(password: str, expected: list[str]) -> None:
    assert codes(password) == expected


@pytest.mark.parametrize(
    "password",
    ["P@ssw0rd", "p@SSW0RD", "Password1!", "PASSWORD1!", "Welcome1!", "Summer2024!", "Admin@123", "Qwerty123!",
     "Pa$$w0rd1", "Abc123!@#", "1qaz@WSX", "Changeme1!", "L3tm31n!", "Realestate1!", "Iloveyou2!", "Dragon123!"],
)  # fmt: skip
def test_common_passwords_that_meet_the_policy_are_refused(password: str) -> None:
    assert "password_too_common" in codes(password)


def test_common_passwords_are_refused_whatever_the_policy_asks() -> None:
    lax = {
        "password_min_length": 1,
        "password_require_uppercase": False,
        "password_require_lowercase": False,
        "password_require_digits": False,
        "password_require_special": False,
    }
    for password in ("123456", "password", "QWERTY", "пароль"):
        assert codes(password, **lax) == ["password_too_common"]
    assert codes("grqvx", **lax) == []


def test_only_whole_passwords_are_common() -> None:
    assert is_common("password1!")
    assert not is_common("my password1! is longer")
    assert not is_common("assword1")
    assert not is_common("")


def test_the_list_is_long() -> None:
    entries = set(passwords._common_passwords().split(b"\n"))
    assert len(entries) > 10_000
    policy = [
        entry for entry in entries if len(entry) >= 8 and not entry.isalnum() and any(c in b"0123456789" for c in entry)
    ]
    assert len(policy) > 10_000


def test_the_waits_of_wrong_tries() -> None:
    assert waits(5) == (0, 1, 2, 5, 10)
    assert waits(1) == (0,)
    assert waits(3) == (0, 1, 2)
    assert waits(8) == (0, 1, 2, 5, 10, 10, 10, 10)


async def test_one_try_for_an_address_at_a_time() -> None:
    guard = LoginGuard()
    with guard.attempt(b"a") as attempt:
        with guard.attempt(b"b"):
            pass
        with pytest.raises(RateLimitExceededError) as refused, guard.attempt(b"a"):
            pass
        assert refused.value.headers == {"Retry-After": "1"}
        held = asyncio.create_task(attempt.hold(10))
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceededError) as refused, guard.attempt(b"a"):
            pass
        assert refused.value.headers == {"Retry-After": "10"}
        assert refused.value.details == {"limit": 1, "window": 10, "retry_after": 10}
        held.cancel()
    with guard.attempt(b"a"):
        pass


async def test_an_answer_is_held_for_its_time() -> None:
    with LoginGuard().attempt(b"a") as attempt:
        began = time.monotonic()
        await attempt.hold(0.05)
        assert time.monotonic() - began >= 0.05


def test_only_so_many_answers_are_held() -> None:
    guard = LoginGuard(max_held=2)
    with guard.attempt(b"a"):
        with guard.attempt(b"b"):
            with pytest.raises(OverloadedError) as refused, guard.attempt(b"c"):
                pass
            assert refused.value.status == 503
            assert refused.value.headers["Retry-After"]
        with guard.attempt(b"c"):
            pass


def test_a_try_that_fails_gives_up_its_place() -> None:
    guard = LoginGuard(max_held=1)
    with pytest.raises(ZeroDivisionError), guard.attempt(b"a"):
        raise ZeroDivisionError
    with guard.attempt(b"b"):
        pass


def test_the_waiting_time_is_rounded_up() -> None:
    assert too_early(0).headers == {"Retry-After": "1"}
    assert too_early(1.01).headers == {"Retry-After": "2"}
