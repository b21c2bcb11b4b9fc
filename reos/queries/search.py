"""Words of a search, looked up in a trigram index behind a definer function."""

from __future__ import annotations

import re
from typing import Any

from reos.db import Connection, fetch_value
from reos.queries.listing import contains_pattern, lower
from reos.sql import Statement

MAX_HITS = 1000  # beyond that the list index drives and the words filter

LONG_WORD = 12  # characters
INDEXED = 3  # that many patterns, the first ones, are what the functions ask the index for

# What the index can look up: three letters or digits in a row are a trigram.
_TRIGRAM = re.compile(r"[^\W_]{3}")
_RUN = re.compile(r"[^\W_]{3,}")


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
    known = [word for word in words if _TRIGRAM.search(word)]
    indexed = [contains_pattern(word) for word in known]
    others = [contains_pattern(word) for word in words if not _TRIGRAM.search(word)]
    if indexed:
        hits = await fetch_value(conn, statement, _index_patterns(known) + indexed, MAX_HITS + 1)
        if len(hits) <= MAX_HITS:
            filters: dict[str, tuple[Any, ...]] = {"ids": (hits,)}
            return filters | ({"words": (others,)} if others else {})
    return {"words": (indexed + others,)}


def _index_patterns(words: list[str]) -> list[str]:
    """What the index is asked for, in front of the words, the longest of which is the first; of short ones nothing."""
    if len(words[0]) <= LONG_WORD:
        return []
    return ([_index_pattern(word) for word in words[:INDEXED]] * INDEXED)[:INDEXED]


def _index_pattern(word: str) -> str:
    """A pattern of all that contains the word, and of little else.

    The index looks at every trigram for every row that has the rarest one. So of a long word, such as an address whose
    domain half of all rows share, every third has to do: `person12@example.com` becomes `%rso%n12%xam%ple%com%`.
    """
    if len(word) <= LONG_WORD:
        return contains_pattern(word)
    runs = _RUN.findall(word)
    # From the end, where numbers stand that tell alike words apart.
    return "%" + "%".join(run[n : n + 3] for run in runs for n in range(len(run) % 3, len(run), 3)) + "%"


def _words(search: str) -> list[str]:
    """The words, each once. A comma behind a word is punctuation; elsewhere, and alone, it is a character."""
    return list(dict.fromkeys(word.rstrip(",;") or word for word in lower(search).split()))
