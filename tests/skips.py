"""With `--no-skips`, as `.ci/run` has it where it can, a skipped test is an error, but for the reasons named here.

Without it a machine may lack a program that some tests need; a run that has to be complete must not turn green by that.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

# What a reason may begin with, and why the machine need not have been made ready for it.
PERMITTED = (
    "promtool (Debian: prometheus) is not installed",  # much to install for two tests of the alerts
    "PostgreSQL 15 is not installed",  # no Debian but 12 has it
    "npm cannot reach its registry",
    "only root can become another account",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is an error (but see tests/skips.py)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test or of a fixture that it needs."""
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a whole file."""
    report = yield
    _judge(report, collector.config)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if not config.getoption("--no-skips") or not report.skipped or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple)
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not reason.startswith(PERMITTED):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which tests/skips.py does not permit: {reason}"
