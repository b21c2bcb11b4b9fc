"""What the service counts and measures, and its text in Prometheus' format. docs/metrics.md says what each means.

Several processes have one text: each writes what it counts into files of its own in a folder that their supervisor made
(prometheus-client's multiprocess mode), and whoever is asked reads all of them. A process without such a folder has
only its own. The names of the files come from locks: a process takes the first name that no other holds, so that one
that replaces another, on the same machine, goes on where that ended, and two that live at a time never share a file.

No label has a value that a client chooses: no id, no address, no organisation.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client import values as prometheus_values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from reos.errors import ReosError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# In the environment of a supervisor's children. The first name is prometheus-client's own.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME_VARIABLE = "REOS_PROCESS"
DIRECTORY_PREFIX = "reos-metrics-"
# A sample takes some 150 bytes of a file. It grows when that is needed.
FILE_BYTES = {"counter": 64 * 1024, "gauge_livesum": 64 * 1024, "histogram": 2 * 1024 * 1024}
LEFT_SECONDS = 60.0  # a folder that nobody holds is new only for so long

P = ParamSpec("P")
R = TypeVar("R")
Send = Callable[P, Coroutine[Any, Any, R]]


# --- The folder -------------------------------------------------------------------------------------------------


@contextmanager
def shared_directory() -> Iterator[dict[str, str]]:
    """A folder for the files of all children, as what their environment has to name; it is gone afterwards.

    Without one (nothing can be written there) each process tells of itself alone.
    """
    root = Path(tempfile.gettempdir())
    try:
        _remove_left(root)
        directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
        # It says that the folder is in use, also to systemd-tmpfiles, which leaves old files in a locked one alone.
        lock = _lock(directory)
    except OSError as error:
        logger.warning("Each server tells its own metrics only, since there is no folder for all: {}", error)
        yield {}
        return
    try:
        yield {DIRECTORY_VARIABLE: str(directory)}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_left(root: Path) -> None:
    """Remove the folders of supervisors that were killed."""
    for directory in root.glob(f"{DIRECTORY_PREFIX}*"):
        try:
            status = directory.lstat()
            is_left = status.st_uid == os.getuid() and time.time() - status.st_mtime > LEFT_SECONDS
            if is_left and (lock := _lock(directory)) is not None:
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)
        except OSError:
            continue  # Somebody else removes it as well.


def _lock(path: Path) -> int | None:
    """Lock a file or folder until the descriptor is closed or the process ends; None when another has it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _claim_name(directory: Path, wanted: str) -> str:
    """The name under which this process writes, for as long as it lives: the wanted one, or with a number."""
    number = 1
    while True:
        name = wanted if number == 1 else f"{wanted}-{number}"
        if _lock(directory / f"{name}.lock") is not None:
            return name
        number += 1


def _make_files(directory: Path, name: str) -> None:
    """Make the files in which a process counts, unless it goes on with another's. Raises OSError for want of room.

    prometheus-client would make them without taking their room on the disk, and to write into a part of a mapped file
    for which there is none ends the process.
    """
    for kind, size in FILE_BYTES.items():
        path = directory / f"{kind}_{name}.db"
        if not path.exists():
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            partial.rename(path)


def _forget_dead(directory: Path) -> None:
    """Remove what ended processes had in hand (gauges). What they counted stays, since counts never go down."""
    for path in directory.glob("gauge_*.db"):
        name = path.stem.rpartition("_")[2]
        # Under the lock, so that no process takes the name meanwhile.
        lock = _lock(directory / f"{name}.lock")
        if lock is not None:
            path.unlink(missing_ok=True)
            os.close(lock)


def _join() -> tuple[str, Path | None]:
    """The name of this process, and the folder that it shares with others. Before any metric is made."""
    wanted = os.environ.get(NAME_VARIABLE, "")
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        return wanted, None
    try:
        name = _claim_name(Path(directory), wanted or "main")
        _make_files(Path(directory), name)
    except OSError as error:
        logger.warning("This process tells its own metrics only: {}", error)
        prometheus_values.ValueClass = prometheus_values.MutexValue
        return wanted, None
    prometheus_values.ValueClass = prometheus_values.MultiProcessValue(lambda: name)
    return name, Path(directory)


PROCESS, _DIRECTORY = _join()
IS_SHARED = _DIRECTORY is not None  # whether other processes tell of this one
disable_created_metrics()


# --- What there is ----------------------------------------------------------------------------------------------

_REGISTRY = CollectorRegistry()

REQUEST_SECONDS = Histogram(
    "reos_http_request_duration_seconds",
    "Time until a request was answered (a stream: until it began), by the pattern of its path.",
    ["method", "route", "status"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=_REGISTRY,
)
RATE_LIMITED = Counter(
    "reos_rate_limited_requests",
    "Requests refused with 429 by the rate limit, by what they were counted on.",
    ["key"],
    registry=_REGISTRY,
)
STATEMENT_SECONDS = Histogram(
    "reos_db_statement_duration_seconds",
    "Time of a statement with its way there and back, by its name in reos/sql.",
    ["statement"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5),
    registry=_REGISTRY,
)
POOL_SIZE = Gauge(
    "reos_db_pool_size",
    "Connections that a process may have.",
    ["process", "pool"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
POOL_IN_USE = Gauge(
    "reos_db_pool_in_use",
    "Connections in use.",
    ["process", "pool"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
POOL_WAITING = Gauge(
    "reos_db_pool_waiting",
    "How many wait for a connection.",
    ["process", "pool"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
POOL_WAIT_SECONDS = Histogram(
    "reos_db_pool_wait_seconds",
    "Time until a connection was there, where none was at hand.",
    ["pool"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5),
    registry=_REGISTRY,
)
POOL_REFUSED = Counter(
    "reos_db_pool_refused",
    "How often no connection was had in time, or too many waited already.",
    ["pool"],
    registry=_REGISTRY,
)
JOB_SECONDS = Histogram(
    "reos_job_duration_seconds",
    "Time of an attempt of a job, by its kind and outcome.",
    ["kind", "outcome"],
    buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60, 300),
    registry=_REGISTRY,
)
JOBS_LOST = Counter(
    "reos_jobs_lost",
    "Attempts of jobs whose worker died, by kind.",
    ["kind"],
    registry=_REGISTRY,
)
STREAM_CLIENTS = Gauge(
    "reos_sse_clients",
    "Open event streams.",
    ["process"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
STREAM_LISTENING = Gauge(
    "reos_sse_listening",
    "Whether a process hears of new events (1), or only looks for them every few seconds (0).",
    ["process"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
_STREAM_LAG = Histogram(
    "reos_sse_lag_seconds",
    "Time from an event's commit until it was written to a live stream.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15),
    registry=_REGISTRY,
)
STREAMS_CUT = Counter(
    "reos_sse_streams_cut",
    "Event streams that were cut off, mostly because their client was too slow.",
    registry=_REGISTRY,
)
MAILS = Counter("reos_mails", "Mails handed to the mail server, by outcome.", ["outcome"], registry=_REGISTRY)
TEXTS = Counter("reos_sms", "Text messages handed to the provider, by outcome.", ["outcome"], registry=_REGISTRY)
CAMPAIGN_MESSAGES = Counter(
    "reos_campaign_messages",
    "What became of campaigns' recipients, each attempt by its outcome.",
    ["outcome"],
    registry=_REGISTRY,
)
WEBHOOK_SECONDS = Histogram(
    "reos_webhook_duration_seconds",
    "Time of an attempt to deliver a webhook, by what comes next of it.",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
    registry=_REGISTRY,
)
LOOP_LAG = Histogram(
    "reos_event_loop_lag_seconds",
    "How late a process came to what was due, measured every two seconds.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5),
    registry=_REGISTRY,
)
CPU_SECONDS = Counter("reos_process_cpu_seconds", "Processor time used.", ["process"], registry=_REGISTRY)
MEMORY_BYTES = Gauge(
    "reos_process_resident_memory_bytes",
    "Memory in use.",
    ["process"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
OPEN_FILES = Gauge(
    "reos_process_open_fds",
    "Open files and connections.",
    ["process"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
START_TIME = Gauge(
    "reos_process_start_time_seconds",
    "When the process began, in seconds since 1970.",
    ["process"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)

JOB_OUTCOMES = ("done", "retried", "failed", "stopped")
MESSAGE_OUTCOMES = ("sent", "put_off", "refused", "unknown", "error")
CAMPAIGN_OUTCOMES = ("sent", "failed", "retry", "unknown", "released")
WEBHOOK_OUTCOMES = ("delivered", "retry", "failed")

# What can be known beforehand is there from the beginning: of a count that first shows up as 1 nobody sees an increase.
for _key in ("user", "address"):
    RATE_LIMITED.labels(_key)
for _outcome in MESSAGE_OUTCOMES:
    MAILS.labels(_outcome)
    TEXTS.labels(_outcome)
for _outcome in CAMPAIGN_OUTCOMES:
    CAMPAIGN_MESSAGES.labels(_outcome)
for _outcome in WEBHOOK_OUTCOMES:
    WEBHOOK_SECONDS.labels(_outcome)


# --- Counting ---------------------------------------------------------------------------------------------------


class Tally:
    """Observations of one child of a histogram, gathered until `flush` hands them on.

    Writing to the files of several processes takes 1.5 us an observation, gathering 0.2; and a request has three. What
    is killed loses those of its last moment. The event loop's thread alone may use it.
    """

    __slots__ = ("_bounds", "_child", "_counts", "_sum")

    def __init__(self, child: Histogram):
        self._child = child
        self._bounds = child._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        _tallies.append(self)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Hand on what was gathered: what `child.observe` would have done for each."""
        if not any(self._counts):
            return
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._sum)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0


_tallies: list[Tally] = []
STREAM_LAG = Tally(_STREAM_LAG)
_statements: dict[str, Tally] = {}


def flush() -> None:
    """Hand on what was gathered since the last time."""
    for tally in _tallies:
        tally.flush()


@cache
def request_tally(method: str, route: str, status: int) -> Tally:
    """What keeps how long requests took. `method` and `route` must be of a bounded set."""
    return Tally(REQUEST_SECONDS.labels(method, route, str(status)))


@cache
def pool_tally(pool: str) -> Tally:
    """What keeps how long those waited who found no connection of the pool at hand."""
    return Tally(POOL_WAIT_SECONDS.labels(pool))


async def timed(name: str, query: Coroutine[Any, Any, R]) -> R:
    """Run a statement and keep how long it took under its name, also when it fails."""
    began = time.perf_counter()
    try:
        return await query
    finally:
        child = _statements.get(name)
        if child is None:
            child = _statements[name] = Tally(STATEMENT_SECONDS.labels(name))
        child.observe(time.perf_counter() - began)


def counted(counter: Counter) -> Callable[[Send[P, R]], Send[P, R]]:
    """Decorate what hands a message over, to count what comes of it."""

    def decorate(send: Send[P, R]) -> Send[P, R]:
        @wraps(send)
        async def count(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                result = await send(*args, **kwargs)
            except BaseException as error:
                counter.labels(_outcome_of(error)).inc()
                raise
            counter.labels("sent").inc()
            return result

        return count

    return decorate


def _outcome_of(error: BaseException) -> str:
    if not isinstance(error, ReosError):
        return "error"
    if getattr(error, "unknown", False):
        return "unknown"
    return "put_off" if getattr(error, "temporary", False) else "refused"


# --- The text ---------------------------------------------------------------------------------------------------


def gauge(name: str, help: str, value: float | None, **labels: str) -> GaugeMetricFamily:
    """A value that is read at the moment of the scrape; None: there is none."""
    family = GaugeMetricFamily(name, help, labels=list(labels))
    if value is not None:
        family.add_metric(list(labels.values()), value)
    return family


class _Everything:
    """What all processes have counted, and what was read just now."""

    def __init__(self, live: Iterable[Metric]):
        self.live = live

    def collect(self) -> Iterator[Metric]:
        yield from self.live
        failed = False
        try:
            yield from list(_counted())
        except Exception as error:
            logger.opt(exception=error).error("What the processes have counted could not be read")
            failed = True
        yield gauge("reos_scrape_failed", "Whether what the processes have counted could not be read.", failed)


def _counted() -> Iterable[Metric]:
    if _DIRECTORY is None:
        return _REGISTRY.collect()
    _forget_dead(_DIRECTORY)
    found: Iterable[Metric] = MultiProcessCollector(None, str(_DIRECTORY)).collect()
    return found


def render(live: Iterable[Metric]) -> bytes:
    """The text of everything. It takes some 10 ms a thousand lines, so not on the event loop."""
    return generate_latest(_Everything(live))
