"""Words of a search, looked up in a trigram index behind a definer function."""

from __future__ import annotations

from typing import Any

from reos.db import Connection, fetch_all
from reos.queries.listing import contains_pattern
from reos.sql import Statement

INDEXED_WORD = 3  # characters: a shorter word has no trigram
MAX_HITS = 1000  # beyond that the list index drives and the words filter


async def search_filters(conn: Connection, statement: Statement, search: str) -> dict[str, tuple[Any, ...]]:
    """The list filters `ids` and `words` of a search text; none for an empty one.

    Words of three or more characters are looked up first. Up to MAX_HITS hits drive the list; with more, or
    with short words alone, every word is a filter over the list.
    """
    words = list(dict.fromkeys(search.lower().split()))
    long_words = [contains_pattern(word) for word in words if len(word) >= INDEXED_WORD]
    short_words = [contains_pattern(word) for word in words if len(word) < INDEXED_WORD]
    if not words:
        return {}
    if long_words:
        hits = await fetch_all(conn, statement, long_words, MAX_HITS + 1)
        if len(hits) <= MAX_HITS:
            filters: dict[str, tuple[Any, ...]] = {"ids": ([row["id"] for row in hits],)}
            return filters | ({"words": (short_words,)} if short_words else {})
    return {"words": (long_words + short_words,)}
