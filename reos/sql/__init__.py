"""The loader of the hand-written statements in the `.sql` files beside this module.

A file holds fragments and statements, each under a heading, with a sentence that says why it is so:

    -- name: property_columns :fragment
    p.id, p.address

    -- name: get_property :one
    -- The single GET.
    select {property_columns} from properties p where p.id = $1

`{name}` inserts a fragment of the same file. The name stays in the statement as a comment behind its first word, so
that pg_stat_statements and the server's log tell which query they show: since PostgreSQL 18 a comment in front of a
statement is no part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

Cardinality = Literal["one", "many", "value", "exec"]

_HEADING = re.compile(r"^-- name: (\w+) :(one|many|value|exec|fragment)\s*$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_FIRST_COMMENT = re.compile(r"\s*((?:--.*\n)*)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A named statement: its text with the name in it, how many rows it gives, and the sentences above it."""

    name: str
    text: str
    cardinality: Cardinality
    comment: str


@cache
def load(resource: str) -> Any:
    """All statements of `<resource>.sql` as attributes; fragments as plain strings."""
    source = (Path(__file__).parent / f"{resource}.sql").read_text(encoding="utf-8")
    parts = _HEADING.split(source)[1:]
    fragments: dict[str, str] = {}
    statements: dict[str, Statement | str] = {}
    for name, kind, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = _COMMENT.sub("", body).strip().rstrip(";")
        for key, value in fragments.items():
            text = text.replace("{" + key + "}", value)
        if name in statements:
            raise ValueError(f"{resource}.sql names {name} twice")
        if kind == "fragment":
            fragments[name] = statements[name] = text
        else:
            statements[name] = Statement(name, named(name, text), cast(Cardinality, kind), _sentences(body))
    return SimpleNamespace(**statements)


def named(name: str, text: str) -> str:
    """The text of a statement with its name behind the first word."""
    first, rest = re.split(r"\s", text, maxsplit=1)
    return f"{first} -- name: {name}\n{rest}"


def _sentences(body: str) -> str:
    """The comment at the beginning of a statement, without its dashes."""
    found = _FIRST_COMMENT.match(body)
    return "\n".join(line.removeprefix("--").strip() for line in found[1].splitlines()) if found else ""


def resources() -> list[str]:
    """The names of all `.sql` files, for the test that prepares every statement."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.sql"))
