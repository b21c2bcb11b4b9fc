"""Every link between the documents leads somewhere, and every path that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tools").glob("*/*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
NAMED = re.compile(r"`((?:reos|tests|tools|docs|deploy|migrations)/[\w./-]*\w)`")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    named = re.findall(r"<a (?:id|name)=\"([^\"]+)\"", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings} | set(named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(without_code(page.read_text())):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_are_there(page: Path) -> None:
    # The examples of CONTRIBUTING.md and docs/dba.md are about files to be made.
    missing = {name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists()}
    assert {name for name in missing if not re.search("cities|visits", name)} == set()


def test_the_map_of_the_code_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^((?:reos|migrations|tests|tools)/[\w./]*)  ", text, re.MULTILINE)
    assert len(listed) > 10
    assert [name for name in listed if not (ROOT / name).exists()] == []
