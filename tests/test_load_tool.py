"""The command line of `make load`, and how its results are judged."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from reos import server
from reos.db import ACQUIRE_TIMEOUT
from tools.load.__main__ import RUNS, Result, run_all, tell, wanted_runs
from tools.load.logins import LoginRun
from tools.load.pool import PoolRun
from tools.load.rolling import TABLES, Follower, Story
from tools.load.slow import LATE, SlowRun
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


def answer(status: int, seconds: float = 0.1, **headers: str) -> Answer:
    return Answer(status, headers, b"", seconds)


REFUSED = answer(503, **{"retry-after": "1"})
PROBE = Probe({"/live": [0.01, 0.02]}, {"/live": Counter({200: 2})})
DELAYED = Probe({"/live": [0.01, 1.02]}, {"/live": Counter({200: 2})})
BROKEN = Probe({"/live": [0.01, 0.02]}, {"/live": Counter({200: 1, 500: 1})})
FOLLOWER = Follower(1, {}, Story())
FOLLOWER.ids, FOLLOWER.told = [1], 1
SILENT = copy.copy(FOLLOWER)
SILENT.told = 0

HEADERS, BODIES, TAKEN = server.HEADER_SECONDS, server.BODY_SECONDS, server.TAKE_SECONDS
SLOW = SlowRun([answer(408, HEADERS + 1)], [answer(408, BODIES + 1)], [TAKEN + 1], PROBE, (1, 2, 1), (1, 1))
POOL = PoolRun([REFUSED], [answer(200)], PROBE, REFUSED, 0.1, (1, 1))
LOGINS = LoginRun([answer(200), REFUSED], [answer(401)], PROBE, (1, 1), (1, 1))
LIMITED = answer(429, **{"retry-after": "1"})
LIMITED_LOGINS = LoginRun([answer(200), LIMITED], [answer(401), LIMITED], PROBE, (1, 1), (1, 1), limit=2)
STREAMS = StreamRun(4, 2, 0.1, [0.1, 0.1], 0, 0.1, 1, 3, PROBE, {"before": 1}, {"before": 1})
STOP = Stop(4, 1, 2.0, 4)
STORY = Story(
    Counter({"GET 200": 9}), [], [0.1], {}, 0, [FOLLOWER], 9.0, list(TABLES), rate=99, wanted_rate=100
)  # fmt: skip

WRONG: list[tuple[Any, dict[str, Any]]] = [
    (SLOW, {"headers": [*SLOW.headers, answer(200, HEADERS)]}),
    (SLOW, {"bodies": [answer(0, BODIES)]}),
    (SLOW, {"headers": [answer(408, HEADERS - 1)]}),
    (SLOW, {"bodies": [*SLOW.bodies, answer(408, BODIES + LATE + 1)]}),
    (SLOW, {"readers": [TAKEN, TAKEN + LATE + 1]}),
    (SLOW, {"probe": DELAYED}),
    (SLOW, {"probe": BROKEN}),
    (POOL, {"refused": [REFUSED, replace(REFUSED, status=500)]}),
    (POOL, {"refused": [REFUSED, answer(503)]}),
    (POOL, {"refused": [REFUSED, replace(REFUSED, seconds=ACQUIRE_TIMEOUT + 1.1)]}),
    (POOL, {"granted": [answer(200), REFUSED]}),
    (POOL, {"ready": answer(200)}),
    (POOL, {"recovered": 1.5}),
    (POOL, {"probe": DELAYED}),
    (LOGINS, {"right": [answer(200), answer(401)]}),
    (LOGINS, {"wrong": [answer(200)]}),
    (LOGINS, {"wrong": [answer(503)]}),
    (LOGINS, {"right": [REFUSED]}),
    (LOGINS, {"wrong": [LIMITED]}),
    (LOGINS, {"probe": BROKEN}),
    (LIMITED_LOGINS, {"wrong": [answer(401), answer(401)]}),
    (LIMITED_LOGINS, {"wrong": [LIMITED, LIMITED]}),
    (STREAMS, {"reached": [0.1]}),
    (STREAMS, {"wrongly_reached": 1}),
    (STREAMS, {"kept": 2}),
    (STREAMS, {"cut_off": 0}),
    (STREAMS, {"probe": DELAYED}),
    (STOP, {"told": 3}),
    (STOP, {"seconds": 15.0}),
    (STORY, {"failures": ["GET /x: ConnectionResetError()"]}),
    (STORY, {"problems": ["jobs"]}),
    (STORY, {"rate": 89.0}),
    (STORY, {"migrated": list(TABLES)[1:]}),
    (STORY, {"followers": [FOLLOWER, SILENT]}),
]


def test_what_is_as_promised_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell([SLOW, POOL, LOGINS, LIMITED_LOGINS, STREAMS, STOP, STORY])
    assert "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize(("good", "change"), WRONG, ids=[f"{type(g).__name__}-{next(iter(c))}" for g, c in WRONG])
def test_what_is_not_is_told(good: Any, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert not tell([STOP, replace(good, **change)])
    assert capsys.readouterr().out.count("MISSED") == 1


def test_the_exit_code_is_0_when_all_is_as_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(["slow", "streams"], lambda name: [SLOW] if name == "slow" else [STREAMS, STOP]) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_the_exit_code_is_1_when_one_run_missed_something(capsys: pytest.CaptureFixture[str]) -> None:
    late = replace(STOP, seconds=15.5)
    assert run_all(["streams", "slow"], lambda name: [STREAMS, late] if name == "streams" else [SLOW]) == 1
    said = capsys.readouterr().out
    assert said.count("MISSED") == 1
    assert "MISSED: the stop took 15.5 s" in said.partition("\nslow\n")[0]


def test_a_run_that_breaks_off_is_told_with_what_it_had_and_the_others_are_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(name: str) -> Iterator[Result]:
        yield POOL
        if name == "pool":
            raise TimeoutError("nothing came")

    assert run_all(["pool", "slow"], make) == 1
    said = capsys.readouterr().out
    assert said.count("MISSED") == 1
    assert "MISSED: it did not come to its end: TimeoutError('nothing came')" in said.partition("\nslow\n")[0]
    assert said.count("/ready meanwhile") == 2
