"""`make bench`: that changes by many clients are a part of it, and how they are judged."""

from __future__ import annotations

import pytest

from tools.bench import writes
from tools.bench.__main__ import PARTS
from tools.bench.writes import Round

pytestmark = pytest.mark.unit


def rounds(*rates: float) -> list[Round]:
    return [Round(rate, 0.001, [0.01, 0.02, 0.03]) for rate in rates]


def test_changes_by_many_clients_are_a_part_of_it() -> None:
    assert "writes" in PARTS


@pytest.mark.parametrize(
    ("few", "more", "many", "part", "is_met"),
    [
        (100, 100, 95, "95%", True),
        (100, 100, 90, "90%", True),
        (100, 100, 89, "89%", False),
        # It is the best with fewer that counts, whichever that is.
        (100, 200, 170, "85%", False),
        (200, 100, 170, "85%", False),
    ],
)
def test_many_clients_are_compared_with_the_best_of_fewer(
    few: float, more: float, many: float, part: str, is_met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = dict(zip(writes.CLIENTS, map(rounds, (few, more, many)), strict=True))
    assert writes.report(figures) == (f"256 clients get {part} of the best with fewer; goal 90%", is_met)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["clients", "16", "64", "256"]


def test_a_round_that_others_disturbed_does_not_decide(capsys: pytest.CaptureFixture[str]) -> None:
    # All in one round share what happens then, so that each round is a ratio and the median of these counts.
    figures = {16: rounds(100, 50, 100), 64: rounds(100, 50, 100), 256: rounds(95, 47, 20)}
    assert writes.report(figures) == ("256 clients get 94% of the best with fewer; goal 90%", True)
    assert capsys.readouterr().out
