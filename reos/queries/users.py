"""The organisation's users."""

from __future__ import annotations


def email_key(email: str) -> str:
    """What an address is compared by: addresses differ in more than their case."""
    return email.lower()
