"""Words of a search, looked up in a trigram index behind a definer function."""

from __future__ import annotations

import re
from typing import Any

from reos.db import Connection, fetch_all
from reos.queries.listing import contains_pattern, lower
from reos.sql import Statement

MAX_HITS = 1000  # beyond that the list index drives and the words filter

# What the index can look up: three letters or digits in a row are a trigram.
_TRIGRAM = re.compile(r"[^\W_]{3}")


async def search_filters(conn: Connection, statement: Statement, search: str) -> dict[str, tuple[Any, ...]]:
    """The list filters `ids` and `words` of a search text; none for an empty one.

    Words of three or more characters are looked up first. Up to MAX_HITS hits drive the list; with more, or
    with short words alone, every word is a filter over the list.
    """
    words = _words(search)
    if not words:
        return {}
    # The function's first patterns are those that its index condition names.
    words.sort(key=len, reverse=True)
    indexed = [contains_pattern(word) for word in words if _TRIGRAM.search(word)]
    others = [contains_pattern(word) for word in words if not _TRIGRAM.search(word)]
    if indexed:
        hits = await fetch_all(conn, statement, indexed, MAX_HITS + 1)
        if len(hits) <= MAX_HITS:
            filters: dict[str, tuple[Any, ...]] = {"ids": ([row["id"] for row in hits],)}
            return filters | ({"words": (others,)} if others else {})
    return {"words": (indexed + others,)}


def _words(search: str) -> list[str]:
    """The words, each once. A comma behind a word is punctuation; elsewhere, and alone, it is a character."""
    return list(dict.fromkeys(word.rstrip(",;") or word for word in lower(search).split()))
