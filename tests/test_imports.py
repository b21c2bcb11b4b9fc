"""Who may import whom, where Sanic and SQL may stand, and that every library used is asked for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "reos").rglob("*.py"))

# The rows import only from their own row and those below. The lowest may be imported by anybody.
LAYERS = [
    ["settings", "errors", "encoding", "log", "sql", "processes", "demo", "metrics"],
    ["db"],
    ["schemas"],
    ["queries"],
    ["auth", "jobs", "integrations", "events", "locks", "streams", "scrape", "context"],
    ["handlers", "middleware", "openapi"],
    ["app"],
    ["server", "migrate", "embedded", "doctor", "rls", "reload", "seed", "admin", "__main__"],
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

SANIC = {"app.py", "server.py", "events.py", "auth/guard.py"}
SANIC_FOLDERS = ("handlers/", "middleware/")

# A statement, as opposed to a sentence: keywords in one case, at the beginning. The list builder puts together what
# pypika writes; the two files that handle connections hold the few words that begin, end and probe.
SQL = re.compile(
    r"\s*(--.*\n\s*)*(select|insert into|update|delete from|with|create|alter|drop|grant|revoke|truncate)\s", re.ASCII
)
SQL_FILES = {"db.py", "jobs/connector.py", "queries/listing.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "reos").as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Each module that a file imports, with the line. `from reos import db` counts as reos.db."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            if node.module == "reos":
                for alias in node.names:
                    yield f"reos.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def layer(module: str) -> str:
    """The part of `reos` that a module belongs to: `reos.queries.deals` is of `queries`."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    own = name_of(path).split("/")[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in RANKS, f"give {own} a place in LAYERS"
    for module, line in imports(path):
        if module.startswith("reos.") and layer(module) in RANKS:
            assert RANKS[layer(module)] <= RANKS[own], f"{name_of(path)}:{line} imports {module}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sanic_stays_in_its_places(path: Path) -> None:
    name = name_of(path)
    if name in SANIC or name.startswith(SANIC_FOLDERS):
        return
    for module, line in imports(path):
        assert module.split(".")[0] not in ("sanic", "sanic_ext"), f"{name}:{line} imports {module}"


def texts(path: Path) -> Iterator[tuple[str, int]]:
    """The string literals of a file, f-strings by their beginning, without docstrings."""
    skipped: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(id(value) for value in node.values[1:])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value, node.lineno


def is_sql(text: str) -> bool:
    return bool(SQL.match(text) or (text[:4].isupper() and SQL.match(text.lower())))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sql_stands_in_sql_files(path: Path) -> None:
    if name_of(path) in SQL_FILES:
        return
    for text, line in texts(path):
        assert not is_sql(text), f"{name_of(path)}:{line} holds SQL"


def test_every_library_is_asked_for_and_pinned() -> None:
    """What reos imports is a dependency of its own, not only one of a dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    asked = {normal(re.split(r"[\[<>=;~! ]", text)[0]) for text in project["dependencies"]}
    asked.add("pydantic-core")  # Comes with pydantic, in the one version that fits.
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    used = {module.split(".")[0] for path in FILES for module, _ in imports(path)}
    distributions = packages_distributions()
    for library in used - set(sys.stdlib_module_names) - {"reos"}:
        names = {normal(name) for name in distributions[library]}
        assert names & asked, f"{library} is imported, but {names} is not among the dependencies"
        assert names & pinned, f"{library} is imported, but {names} is not in requirements.lock; run `make lock`"


def test_the_rules_can_fail() -> None:
    assert RANKS["queries"] < RANKS["handlers"] < RANKS["app"]
    for text in ("select 1", "SELECT 1", "insert into x", "-- name: x\nselect 1", "with a as (select 1)", "DROP x"):
        assert is_sql(text), text
    for text in ("Select one of these.", "Update failed.", "selected", "created_at", "with", "Drop it"):
        assert not is_sql(text), text
