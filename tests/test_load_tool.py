"""The command line of `make load`, and how its results are judged."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tools.load.__main__ import RUNS, tell, wanted_runs
from tools.load.logins import LoginRun
from tools.load.pool import PoolRun
from tools.load.rolling import TABLES, Follower, Story
from tools.load.slow import SlowRun
from tools.load.streams import Stop, StreamRun
from tools.load.wire import Answer, Probe

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


# --- judgement ---------------------------------------------------------------------------------------------------


def answer(status: int, **headers: str) -> Answer:
    return Answer(status, headers, b"", 0.1)


REFUSED = answer(503, **{"retry-after": "1"})
PROBE = Probe({"/live": [0.01, 0.02]}, {"/live": Counter({200: 2})})
LATE = Probe({"/live": [0.01, 1.02]}, {"/live": Counter({200: 2})})
BROKEN = Probe({"/live": [0.01, 0.02]}, {"/live": Counter({200: 1, 500: 1})})
FOLLOWER = Follower(1, {}, Story())
FOLLOWER.ids, FOLLOWER.told = [1], 1
SILENT = copy.copy(FOLLOWER)
SILENT.told = 0

SLOW = SlowRun([answer(408)], [answer(408)], [60.0], PROBE, (1, 2, 1), (1, 1))
POOL = PoolRun([REFUSED], [answer(200)], PROBE, REFUSED, 0.1, (1, 1))
LOGINS = LoginRun([answer(200), REFUSED], [answer(401)], PROBE, (1, 1), (1, 1))
STREAMS = StreamRun(4, 2, 0.1, [0.1, 0.1], 0, 0.1, 1, 3, PROBE, {"before": 1}, {"before": 1})
STOP = Stop(4, 1, 2.0, 4)
STORY = Story(
    Counter({"GET 200": 9}), [], [0.1], {}, 0, [FOLLOWER], 9.0, list(TABLES), rate=99, wanted_rate=100
)  # fmt: skip

WRONG: list[tuple[Any, dict[str, Any]]] = [
    (SLOW, {"headers": [answer(408), answer(200)]}),
    (SLOW, {"bodies": [answer(0)]}),
    (SLOW, {"probe": LATE}),
    (SLOW, {"probe": BROKEN}),
    (POOL, {"refused": [REFUSED, replace(REFUSED, status=500)]}),
    (POOL, {"refused": [REFUSED, answer(503)]}),
    (POOL, {"granted": [answer(200), REFUSED]}),
    (POOL, {"ready": answer(200)}),
    (POOL, {"recovered": 1.5}),
    (POOL, {"probe": LATE}),
    (LOGINS, {"right": [answer(200), answer(401)]}),
    (LOGINS, {"wrong": [answer(200)]}),
    (LOGINS, {"wrong": [answer(503)]}),
    (LOGINS, {"right": [REFUSED]}),
    (LOGINS, {"probe": BROKEN}),
    (STREAMS, {"reached": [0.1]}),
    (STREAMS, {"wrongly_reached": 1}),
    (STREAMS, {"kept": 2}),
    (STREAMS, {"cut_off": 0}),
    (STREAMS, {"probe": LATE}),
    (STOP, {"told": 3}),
    (STOP, {"seconds": 15.0}),
    (STORY, {"failures": ["GET /x: ConnectionResetError()"]}),
    (STORY, {"problems": ["jobs"]}),
    (STORY, {"rate": 89.0}),
    (STORY, {"migrated": list(TABLES)[1:]}),
    (STORY, {"followers": [FOLLOWER, SILENT]}),
]


def test_what_is_as_promised_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell([SLOW, POOL, LOGINS, STREAMS, STOP, STORY])
    assert "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize(("good", "change"), WRONG, ids=[f"{type(g).__name__}-{next(iter(c))}" for g, c in WRONG])
def test_what_is_not_is_told(good: Any, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert not tell([STOP, replace(good, **change)])
    assert capsys.readouterr().out.count("MISSED") == 1
