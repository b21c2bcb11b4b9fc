"""docs/security.md answers every requirement of levels 1 and 2 once, and names only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
AUDIT = PAGE.index("## The audit")

# OWASP ASVS 5.0.0, levels 1 and 2, without OAuth (10) and WebRTC (17): of each section the numbers that are asked for.
SECTIONS = {
    "1.1": "1-2", "1.2": "1-9", "1.3": "1-11", "1.4": "1-3", "1.5": "1-2",
    "2.1": "1-3", "2.2": "1-3", "2.3": "1-4", "2.4": "1-1",
    "3.2": "1-2", "3.3": "1-4", "3.4": "1-6", "3.5": "1-5", "3.7": "1-2",
    "4.1": "1-3", "4.2": "1-1", "4.3": "1-2", "4.4": "1-4",
    "5.1": "1-1", "5.2": "1-3", "5.3": "1-2", "5.4": "1-3",
    "6.1": "1-3", "6.2": "1-12", "6.3": "1-4", "6.4": "1-4", "6.5": "1-5", "6.6": "1-3", "6.8": "1-4",
    "7.1": "1-3", "7.2": "1-4", "7.3": "1-2", "7.4": "1-5", "7.5": "1-2", "7.6": "1-2",
    "8.1": "1-2", "8.2": "1-3", "8.3": "1-1", "8.4": "1-1",
    "9.1": "1-3", "9.2": "1-4",
    "11.1": "1-2", "11.2": "1-3", "11.3": "1-3", "11.4": "1-4", "11.5": "1-1", "11.6": "1-1",
    "12.1": "1-3", "12.2": "1-2", "12.3": "1-4",
    "13.1": "1-1", "13.2": "1-5", "13.3": "1-2", "13.4": "1-5",
    "14.1": "1-2", "14.2": "1-4", "14.3": "1-3",
    "15.1": "1-3", "15.2": "1-3", "15.3": "1-7",
    "16.1": "1-1", "16.2": "1-5", "16.3": "1-4", "16.4": "1-3", "16.5": "1-3",
}  # fmt: skip


def required() -> list[str]:
    ranges = {section: map(int, numbers.split("-")) for section, numbers in SECTIONS.items()}
    return [f"{section}.{number}" for section, (first, last) in ranges.items() for number in range(first, last + 1)]


def rows(text: str) -> list[tuple[list[str], list[str]]]:
    """The lines of tables that begin with numbers of requirements: those, and the other cells."""
    found = []
    for line in text.splitlines():
        numbers, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and re.fullmatch(r"\d+\.\d+\.\d+(, \d+\.\d+\.\d+)*", numbers):
            found.append((numbers.split(", "), cells))
    return found


def missing_of(where: str) -> list[str]:
    """What a cell names that is not there: files, and tests in one of the files that it names."""
    paths = re.findall(r"`((?:reos|tests|tools|docs|deploy|migrations)/[\w./-]+)`", where)
    missing = [path for path in paths if not (ROOT / path).exists()]
    sources = "\n".join(
        (ROOT / path).read_text() for path in paths if path.startswith("tests/") and path not in missing
    )
    names = re.findall(r"`(test_\w+)`", where)
    return missing + [name for name in names if not re.search(rf"^(?:async )?def {name}\(", sources, re.MULTILINE)]


def test_every_requirement_is_answered_once() -> None:
    answered = [number for numbers, _ in rows(PAGE[AUDIT:]) for number in numbers]
    assert len(required()) == 217
    assert sorted(answered) == sorted(required())


def test_an_answer_is_one_of_three_and_says_where() -> None:
    for numbers, (matter, answer, where) in rows(PAGE[AUDIT:]):
        assert answer in ("met", "not applicable", "open"), numbers
        assert matter, numbers
        assert where, numbers


def test_each_stands_in_its_chapter() -> None:
    for chapter in re.split(r"^### V", PAGE[AUDIT:], flags=re.MULTILINE)[1:]:
        found = {number.partition(".")[0] for numbers, _ in rows(chapter) for number in numbers}
        assert found == {chapter.partition(" ")[0]}


def test_what_is_open_is_told_at_the_top() -> None:
    marked = {number for numbers, (_, answer, _) in rows(PAGE[AUDIT:]) if answer == "open" for number in numbers}
    told = [number for numbers, _ in rows(PAGE[:AUDIT]) for number in numbers]
    assert sorted(told) == sorted(marked)


@pytest.mark.parametrize("row", rows(PAGE[AUDIT:]), ids=lambda row: row[0][0])
def test_files_and_tests_that_it_names_are_there(row: tuple[list[str], list[str]]) -> None:
    assert missing_of(row[1][-1]) == []


def test_what_is_not_there_is_found() -> None:
    assert missing_of("`reos/nothing.py`") == ["reos/nothing.py"]
    assert missing_of("`tests/test_log.py` `test_that_never_was`") == ["test_that_never_was"]
    assert missing_of("`reos/log.py` `test_a_line_holds_what_is_needed`") == ["test_a_line_holds_what_is_needed"]
