"""What is logged: as JSON or for people, with its context, in files that several processes share a directory for."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from reos import log
from reos.settings import Settings

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Leave logging as it was, for the tests after these."""
    handlers, level = logging.root.handlers[:], logging.root.level
    levels = {name: logging.getLogger(name).level for name in log._QUIET}
    claimed = set(log._claimed)
    yield
    logger.remove()
    logger.configure(extra={}, patcher=lambda record: None)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)
    logging.captureWarnings(capture=False)
    log.set_context()
    for path in set(log._claimed) - claimed:
        log._claimed.pop(path).close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path, log_format="json", log_level="INFO")  # type: ignore[call-arg]


@pytest.fixture
def lines(settings: Settings) -> Callable[[], list[dict[str, Any]]]:
    """Set logging up; then a function that gives what was written."""
    log.setup_logging(settings, "web-1")

    def read(name: str = "web-1.log") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (settings.data_dir / "logs" / name).read_text().splitlines()]

    return read


def test_a_line_holds_what_is_needed(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logger.bind(status=200, nothing=None).info("{} {}", "GET", "/{braces}")
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert isinstance(line.pop("pid"), int)
    assert line == {
        "level": "INFO",
        "message": "GET /{braces}",
        "logger": __name__,
        "component": "web-1",
        "status": 200,
    }


async def test_each_task_has_its_own_context(lines: Callable[[], list[dict[str, Any]]]) -> None:
    started = asyncio.Barrier(2)

    async def work(number: int) -> None:
        log.set_context(request_id=f"r{number}", organization_id=number)
        await started.wait()
        log.add_context(user_id=number * 10)
        logger.info("working")
        logging.getLogger("asyncpg").warning("also %s", "working")

    await asyncio.gather(work(1), work(2))
    logger.info("neither")
    *in_tasks, outside = lines()
    assert len(in_tasks) == 4
    for line in in_tasks:
        number = line["organization_id"]
        assert (line["request_id"], line["user_id"]) == (f"r{number}", number * 10)
    assert not {"request_id", "user_id", "organization_id"} & outside.keys()


def test_what_is_bound_wins_over_the_context(lines: Callable[[], list[dict[str, Any]]]) -> None:
    log.set_context(request_id="context")
    logger.bind(request_id="bound").info("x")
    assert lines()[0]["request_id"] == "bound"


def test_libraries_are_heard_but_not_their_chatter(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("sanic.error").error("bad %s", "{thing}")
    logging.getLogger("sanic.access").critical("an access line of Sanic's own")
    logging.getLogger("sanic.root").info("Goin' Fast")
    logging.getLogger("some.library").info("news")
    assert [(line["logger"], line["message"]) for line in lines()] == [
        ("sanic.error", "bad {thing}"),
        ("some.library", "news"),
    ]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_show_no_values(settings: Settings, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    log.setup_logging(settings.model_copy(update={"log_format": log_format}), "web-1", files=False)

    def fail(password: str) -> None:
        raise ValueError("failed")

    secret = "hunter" + str(2)
    try:
        fail(secret)
    except ValueError as error:
        logger.opt(exception=error).error("one")
        logging.getLogger("x").exception("two")
    written = capsys.readouterr().err
    assert written.count("in fail") == 2
    assert secret not in written


def test_errors_have_a_file_of_their_own(lines: Callable[..., list[dict[str, Any]]]) -> None:
    logger.info("fine")
    logger.error("not fine")
    assert [line["message"] for line in lines()] == ["fine", "not fine"]
    assert [line["message"] for line in lines("web-1_errors.log")] == ["not fine"]


def test_a_client_cannot_forge_a_line_for_people(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup_logging(settings.model_copy(update={"log_format": "console"}), "web-1", files=False)
    logger.info("GET /\n12:00:00 ERROR forged \x1b[31m")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"GET /\x0a12:00:00 ERROR forged \x1b[31m")


def test_two_processes_never_write_one_file(settings: Settings) -> None:
    log.setup_logging(settings, "worker")
    code = (
        "from pathlib import Path; import sys; from loguru import logger; from reos import log;"
        "from reos.settings import Settings;"
        "log.setup_logging(Settings(_env_file=None, data_dir=Path(sys.argv[1])), 'worker'); logger.info('second')"
    )
    command = [sys.executable, "-c", code, str(settings.data_dir)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    logger.info("first")
    logs = settings.data_dir / "logs"
    assert logs.stat().st_mode & 0o777 == 0o700, "addresses of people are nothing for other accounts"
    assert "first" in (logs / "worker.log").read_text()
    assert "second" in (logs / "worker-2.log").read_text()
    # A name whose process is gone is taken again.
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert len((logs / "worker-2.log").read_text().splitlines()) == 2


def test_files_are_rotated_compressed_and_limited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ROTATE_AT", "1 KB")
    monkeypatch.setattr(log, "KEEP_FILES", 3)
    log.setup_logging(settings, "web-1")
    for number in range(100):
        logger.error("line {}", number)
        for thread in threading.enumerate():
            if thread.name == "log-compression":
                thread.join()
    logs = settings.data_dir / "logs"
    packed = sorted(logs.glob("web-1.*.log.gz"))
    assert len(packed) == 3
    assert len(list(logs.glob("web-1_errors.*.log.gz"))) == 3
    for path in packed:
        with gzip.open(path, "rt") as file:
            assert all(json.loads(line)["message"].startswith("line ") for line in file)
    assert (logs / "web-1_errors.log").exists()


def test_without_a_place_for_files_it_goes_on(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.data_dir / "logs").write_text("a file where the directory should be")
    log.setup_logging(settings, "web-1")
    logger.info("still heard")
    errors = capsys.readouterr().err
    assert "No log files are written" in errors
    assert "still heard" in errors
