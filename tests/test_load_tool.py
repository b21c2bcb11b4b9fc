"""The command line of `make load`."""

from __future__ import annotations

import pytest

from tools.load.__main__ import RUNS, wanted_runs

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("arguments", "runs"), [([], list(RUNS)), (["slow"], ["slow"]), (["pool", "streams"], ["pool", "streams"])]
)
def test_it_does_what_is_named_and_all_without_a_name(arguments: list[str], runs: list[str]) -> None:
    assert wanted_runs(arguments) == runs


def test_what_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        wanted_runs(["slow", "fast"])
    assert "fast" in capsys.readouterr().err
