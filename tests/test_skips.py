"""A run that has to be complete does not turn green by skipping."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import skips

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent

TESTS = """
import pytest

def test_that_runs(): pass

@pytest.mark.skip(reason="PostgreSQL 15 is not installed in /usr/lib")
def test_permitted(): pass

@pytest.mark.skipif(True, reason="a browser is not installed")
def test_by_mark(): pass

@pytest.fixture
def pooler(): pytest.skip("a pooler is not installed")

def test_by_fixture(pooler): pass

def test_by_itself(): pytest.skip("nobody is in")

@pytest.mark.xfail(reason="known", strict=True)
def test_known(): raise ValueError
"""
MODULE = "import pytest\npytest.importorskip('no_such_module')\ndef test_one(): pass\n"


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """All tests of a directory, with nothing of this project but the plugin."""
    own = ("-p", "skips", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *own, *options],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )


def test_a_skip_that_is_not_permitted_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    done = run(tmp_path, "-n", "1", "--no-skips")
    assert done.returncode == 1, done.stdout + done.stderr
    told = dict(re.findall(r"^test_some.py::(\w+) was skipped, .* does not permit: (.*)$", done.stdout, re.MULTILINE))
    assert told == {
        "test_by_mark": "a browser is not installed",
        "test_by_fixture": "a pooler is not installed",
        "test_by_itself": "nobody is in",
    }
    assert re.search(r"1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors", done.stdout)


def test_a_file_that_is_skipped_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_file.py").write_text(MODULE)
    done = run(tmp_path, "--no-skips")
    assert done.returncode == 2
    assert "test_file.py was skipped, which tests/skips.py does not permit: could not import" in done.stdout


def test_the_run_before_a_merge_has_the_option() -> None:
    assert re.search(r"^\s*make test ARGS=--no-skips$", (HERE.parent / ".ci" / "run").read_text(), re.MULTILINE)


def test_what_is_permitted_is_a_reason_that_some_test_gives() -> None:
    given = "".join(path.read_text() for path in HERE.glob("*.py") if path.name not in ("skips.py", "test_skips.py"))
    assert [reason for reason in skips.PERMITTED if reason not in given] == []
