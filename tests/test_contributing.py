"""CONTRIBUTING.md's example: its files are written into a copy of the project, whose checks and tests then pass."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COPIED = ["reos", "tests", "migrations", "docs", "pyproject.toml", "requirements.lock", "README.md", ".env.example"]
CACHE = ".mypy_cache"  # what `make check` has found out spares looking at everything again
WALKS = ["test_cities.py", "test_permissions.py", "test_isolation.py", "test_statements.py"]


def example() -> dict[str, str]:
    """The files of the example, by their paths, which the first line of each block names."""
    blocks = re.findall(r"^```(?:python|sql)\n(?:#|--) (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project with the example in it."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "node_modules")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    if (ROOT / CACHE).is_dir():
        shutil.copytree(ROOT / CACHE, copy / CACHE)
    for path, text in example().items():
        assert not (copy / path).exists(), path
        (copy / path).write_text(text)
    register(copy)
    yield copy
    shutil.rmtree(copy)


def register(copy: Path) -> None:
    """The lines that a new resource has in files that are there."""
    handlers = copy / "reos/handlers/__init__.py"
    text = handlers.read_text()
    text = text.replace("    conversions,\n", "    cities,\n    conversions,\n").replace(
        "    properties.bp,\n", "    properties.bp,\n    cities.bp,\n"
    )
    handlers.write_text(text)
    guide = copy / "docs/api.md"
    guide.write_text(guide.read_text() + "\n- `GET /properties/cities`: where the properties are.\n")


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=copy, env=environment() | {"PYTHONPATH": str(copy)},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_the_example_has_five_files() -> None:
    assert list(example()) == [
        "reos/schemas/cities.py",
        "reos/sql/cities.sql",
        "reos/queries/cities.py",
        "reos/handlers/cities.py",
        "tests/test_cities.py",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", *(path for path in example() if path.endswith(".py"))),
        ("ruff", "format", "--check", *(path for path in example() if path.endswith(".py"))),
        ("mypy", "reos/handlers/cities.py"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_it_passes_the_checks(copy: Path, command: tuple[str, ...]) -> None:
    done = run(copy, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_works_and_the_walks_over_all_routes_cover_it(copy: Path) -> None:
    tests = ["tests/test_imports.py", *(f"tests/{name}" for name in WALKS)]
    done = run(copy, "pytest", "-v", "-n", "0", "-p", "no:cacheprovider", "-k", "cities or test_imports", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("test_imports.py", "test_cities.py", "test_permissions.py"):
        assert re.search(rf"^tests/{name}::.* PASSED", done.stdout, re.MULTILINE), name
