"""What /metrics tells, that it is right over processes, and that rules, dashboard and docs name what there is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import metrics_text
import pytest
import yaml
from api import Api, served_api
from conftest import Cluster, TestDatabase
from event_streams import connected
from job_queue import job_settings, open_queue, running_worker
from job_queue import until as until_async
from metrics_text import Scrape, groupings, scrape
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from running import ROOT, Run, free_port, home, http_get, running, until

from reos import metrics
from reos.middleware.requests import METHODS
from reos.settings import SettingsError

pytestmark = pytest.mark.integration

REQUESTS = "reos_http_request_duration_seconds_count"


# --- what is counted --------------------------------------------------------------------------------------------


async def test_a_request_is_counted_by_its_pattern(api: Api) -> None:
    admin = await api.register()
    before = await scrape(api)
    for number in (1, 2, 3):
        await admin.get(f"/properties/{number}", status=404)
    await admin.request("HEAD", "/properties")
    for path in ("/api/v1/nothing/7", "/nothing", "/api/v1/properties/1/2/3/4"):
        assert (await api.http.get(path)).status_code == 404
    for method in ("BREW", "PROPFIND"):
        await api.http.request(method, "/nothing")
    now = await scrape(api)

    def rise(metric: str = REQUESTS, **labels: str) -> float:
        return now.value(metric, **labels) - before.value(metric, **labels)

    assert rise(method="GET", route="/api/v1/properties/{property_id}", status="404") == 3
    assert rise(method="HEAD", route="/api/v1/properties", status="200") == 1
    assert rise(method="GET", route="unknown", status="404") == 3
    assert rise(method="other", route="unknown", status="404") == 2
    took = rise("reos_http_request_duration_seconds_sum", method="HEAD", route="/api/v1/properties", status="200")
    assert 0 < took < 30
    # What other tests of this process have asked for is counted too.
    assert {labels["method"] for labels, _ in now.samples[REQUESTS]} <= METHODS | {"other"}


async def test_statements_and_commits_are_timed_by_name(api: Api) -> None:
    name = "reos_db_statement_duration_seconds_count"
    admin = await api.register()
    before = await scrape(api)
    await admin.get("/leads/1", status=404)
    await admin.get("/leads")
    await admin.post("/teams", json={"name": "North"})
    now = await scrape(api)
    for statement in ("get_lead", "list_leads", "commit", "record_changes"):
        assert now.value(name, statement=statement) > before.value(name, statement=statement), statement


async def test_who_waits_for_a_connection_is_measured(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, db_pool_min=1, db_pool_max=1) as api:
        before = await scrape(api)
        async with api.database.acquire():
            reading = asyncio.create_task(api.http.get("/ready"))
            async with asyncio.timeout(5):
                while not api.database.waiting:
                    await asyncio.sleep(0)
            # Without a pause in between, in which another service of this process might tell of its own pool.
            api.context.scraper._sample()
            text = metrics_text.parse(metrics.render([]).decode())
            assert text.value("reos_db_pool_size", process="web", pool="main") == 1
            assert text.value("reos_db_pool_waiting", process="web", pool="main") == 1
            assert text.value("reos_db_pool_in_use", process="web", pool="main") == 1
        assert (await reading).status_code == 200
        now = await scrape(api)
        rise = {
            part: now.value(f"reos_db_pool_wait_seconds_{part}", pool="main")
            - before.value(f"reos_db_pool_wait_seconds_{part}", pool="main")
            for part in ("count", "sum")
        }
        assert rise["count"] >= 1
        assert rise["sum"] > 0


async def test_refused_requests_are_counted(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, rate_limit_per_minute=2) as api:
        before = await scrape(api)
        admin = await api.register()
        assert [(await admin.request("GET", "/teams")).status_code for _ in range(5)] == [200, 200, 429, 429, 429]
        now = await scrape(api)
    name = "reos_rate_limited_requests_total"
    assert now.value(name, key="user") - before.value(name, key="user") == 3
    assert now.value(name, key="address") == before.value(name, key="address")


async def test_what_was_gathered_is_what_would_have_been_observed() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    gathered, observed = (Histogram("x", "", ["a"], registry=r, buckets=(0.1, 1, 5)).labels("b") for r in registries)
    tally = metrics.Tally(gathered)
    try:
        for round_ in range(2):
            for value in (0, 0.1, 0.10001, 1, 3, 5, 5.1, 1e9, round_):
                tally.observe(value)
                observed.observe(value)
            tally.flush()
            tally.flush()
            assert generate_latest(registries[0]) == generate_latest(registries[1])
    finally:
        metrics._tallies.remove(tally)


async def test_without_the_database_the_rest_is_told(postgres_server: Cluster, tmp_path: Path) -> None:
    with postgres_server.database() as database:
        async with served_api(database, tmp_path) as api:
            assert (await scrape(api)).value("reos_database_up") == 1
            postgres_server.execute(f'alter database "{database.name}" allow_connections false')
            postgres_server.execute(
                f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database.name}'"
            )
            now = await scrape(api)
            assert now.value("reos_database_up") == 0
            assert not now.samples["reos_jobs"]
            assert not now.samples["reos_job_workers"]
            assert now.value("reos_db_pool_size", process="web", pool="main") > 0
            postgres_server.execute(f'alter database "{database.name}" allow_connections true')
            now = await scrape(api)
            assert now.value("reos_database_up") == 1
            assert now.samples["reos_jobs"]


# --- over processes ---------------------------------------------------------------------------------------------


def direct(run: Run) -> Scrape:
    """What one of the servers tells; a new connection comes to any of them."""
    response = http_get(f"{run.url}/metrics", timeout=10)
    assert response.status_code == 200
    return metrics_text.parse(response.text)


def processes(told: Scrape) -> set[str]:
    return {labels["process"] for labels, _ in told.samples["reos_process_start_time_seconds"]}


@pytest.mark.slow
def test_every_server_tells_of_all_processes(tmp_path: Path) -> None:
    asked = {"method": "GET", "route": "/api/v1/teams", "status": "401"}
    port = free_port()
    with home() as directory, running(directory, SEED_DEMO=0, TMPDIR=tmp_path, WORKER_METRICS_PORT=port) as run:
        until(lambda: processes(direct(run)) == {"web-1", "web-2", "worker"})
        for _ in range(40):
            http_get(f"{run.url}/api/v1/teams")
        # Each server gives away every two seconds what it has counted, and tells the same for half a second.
        until(lambda: all(direct(run).value(REQUESTS, **asked) == 40 for _ in range(8)))
        until(lambda: direct(run).value("reos_job_duration_seconds_count", kind="rescue_stalled_jobs", outcome="done"))

        with pytest.raises(httpx.ConnectError):  # Everything would be counted twice.
            http_get(f"http://127.0.0.1:{port}/metrics")

        # What was killed leaves its counts, and no gauges; what takes its place goes on counting.
        started = {p: direct(run).value("reos_process_start_time_seconds", process=p) for p in ("web-1", "worker")}
        os.kill(run.children("reos.server")[0], signal.SIGKILL)
        os.kill(run.children("worker")[0], signal.SIGKILL)

        def are_replaced() -> bool:
            told = direct(run)
            return all(told.value("reos_process_start_time_seconds", process=p) > at for p, at in started.items())

        until(are_replaced, 30)
        told = direct(run)
        assert processes(told) == {"web-1", "web-2", "worker"}
        assert told.value(REQUESTS, **asked) == 40
        (folder,) = tmp_path.glob("reos-metrics-*")
        assert told.value("reos_scrape_failed") == 0
        (folder / "counter_broken.db").write_bytes(b"x")
        until(lambda: direct(run).value("reos_scrape_failed") == 1)
        assert direct(run).value("reos_job_workers") >= 1
        assert run.stop() == 0
        assert not folder.exists()


def test_two_services_never_share_a_folder_and_what_was_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (left := tmp_path / "reos-metrics-left").mkdir()
    (left / "counter_web-1.db").touch()
    (fresh := tmp_path / "reos-metrics-fresh").mkdir()
    os.utime(left, (time.time() - 120,) * 2)
    with metrics.shared_directory() as first:
        assert not left.exists()
        assert fresh.exists()
        held = Path(first[metrics.DIRECTORY_VARIABLE])
        os.utime(held, (time.time() - 120,) * 2)
        with metrics.shared_directory() as second:
            assert held.exists()
            assert first != second
    assert list(tmp_path.iterdir()) == [fresh]


def test_without_a_folder_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-such-folder"))
    with metrics.shared_directory() as shared:
        assert shared == {}


def test_only_gauges_of_the_dead_are_forgotten(tmp_path: Path) -> None:
    names = [metrics._claim_name(tmp_path, "web-1") for _ in range(2)]
    assert names == ["web-1", "web-1-2"]
    for name in (*names, "web-9"):
        (tmp_path / f"gauge_livesum_{name}.db").touch()
        (tmp_path / f"counter_{name}.db").touch()
    metrics._forget_dead(tmp_path)
    assert {path.name for path in tmp_path.glob("gauge*")} == {f"gauge_livesum_{name}.db" for name in names}
    assert len(list(tmp_path.glob("counter*"))) == 3


def test_files_take_their_room_at_once(tmp_path: Path) -> None:
    metrics._make_files(tmp_path, "web-1")
    sizes = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert {name: status.st_size for name, status in sizes.items()} == {
        f"{kind}_web-1.db": size for kind, size in metrics.FILE_BYTES.items()
    }
    assert all(status.st_blocks * 512 >= status.st_size for status in sizes.values())


async def test_a_worker_alone_has_a_port_of_its_own(database: TestDatabase, tmp_path: Path) -> None:
    port = free_port()
    settings = job_settings(database, tmp_path, worker_metrics_port=port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as http, running_worker(settings):

        async def is_there() -> bool:
            try:
                return (await http.head("/metrics")).status_code == 200
            except httpx.ConnectError:
                return False

        await until_async(is_there)
        assert (await http.head("/metrics")).content == b""
        response = await http.get("/metrics")
        assert response.headers["Content-Type"] == metrics.CONTENT_TYPE
        told = metrics_text.parse(response.text)
        assert told.value("reos_db_pool_size", process="worker", pool="main") == settings.db_pool_max
        assert (await http.get("/health")).status_code == 404
        with pytest.raises(SettingsError, match=f"WORKER_METRICS_PORT: {port} on 127.0.0.1 cannot be served"):
            async with running_worker(settings) as second:
                await second


# --- rules, dashboard, docs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def told(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scrape]:
    """A scrape after a bit of everything."""
    settings = job_settings(database, tmp_path_factory.mktemp("jobs"))
    async with (
        served_api(database, tmp_path_factory.mktemp("told"), rate_limit_per_hour=20) as api,
        open_queue(database, settings) as queue,
    ):
        admin = await api.register()
        await admin.get("/teams")
        await api.http.get("/nothing")
        async with connected(api.url, admin.headers) as stream:
            await stream.next()
            await admin.post("/leads", json={"first_name": "Jo", "last_name": "Lee", "source": "website"})
            await stream.next()
        await queue.add_running("retry_failed_webhooks", silent_for=100)
        job_id, failing_id = await queue.defer("rescue_stalled_jobs"), await queue.defer("send_webhook")
        # It was not told which webhook, and this is its last attempt.
        await queue.conn.execute("update procrastinate_jobs set attempts = 9 where id = $1", failing_id)
        async with running_worker(settings):
            await queue.until(job_id, "succeeded")
            await queue.until(failing_id, "failed")
            yield await scrape(api)


MONITORING = ROOT / "deploy" / "monitoring"
OF_THE_TARGET = {"job", "instance"}  # what Prometheus itself adds to every sample


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "reos.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and its text."""
    for rule in rules():
        yield rule.get("record") or rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"].replace("$__rate_interval", "5m")


RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def labels_of(told: Scrape, name: str) -> set[str]:
    """The labels that a metric has, or a recorded one, which has those that it groups by."""
    if name == "up":
        return OF_THE_TARGET
    if name in RECORDED:
        return groupings(RECORDED[name]) - {"le"}
    assert told.samples[name], f"nothing is called {name}"
    return {label for labels, _ in told.samples[name] for label in labels} | OF_THE_TARGET


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda text: text if len(text) < 40 else "")
def test_what_rules_and_dashboard_name_is_told(told: Scrape, where: str, expression: str) -> None:
    found = metrics_text.selectors(expression)
    assert found, where
    known = [labels_of(told, selector.name) for selector in found]
    for selector, labels in zip(found, known, strict=True):
        for label, operator, value in selector.matchers:
            assert label in labels, f"{where}: {selector.name} has no label {label}"
            values = {given.get(label) for given, _ in told.samples[selector.name]}
            if operator == "=" and label not in OF_THE_TARGET:
                assert value in values, f"{where}: no {selector.name} has the {label} {value}"
            elif operator == "=~" and value != "5..":
                assert any(re.fullmatch(value, text) for text in values if text), f"{where}: {label}=~{value}"
    for label in groupings(expression):
        assert all(label in labels for labels in known if labels != OF_THE_TARGET), f"{where} groups by {label}"


def test_the_expressions_are_read() -> None:
    read = metrics_text.selectors(
        'topk(10, sum by (a, le) (rate(x_bucket{b=~"c|d", e!="f"}[5m]))) / max(y:z) > 1e3 or up'
    )
    assert read == [
        metrics_text.Selector("x_bucket", (("b", "=~", "c|d"), ("e", "!=", "f"))),
        metrics_text.Selector("y:z", ()),
        metrics_text.Selector("up", ()),
    ]
    assert groupings("sum by (a, le) (x) * on (b) group_left (c) y") == {"a", "le", "b", "c"}


def test_legends_and_summaries_name_labels_that_are_there(told: Scrape) -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert_named(told, target["expr"], re.findall(r"{{ *(\w+) *}}", target["legendFormat"]), panel["title"])
    for rule in rules():
        if "alert" in rule:
            named = re.findall(r"{{ \$labels\.(\w+) }}", rule["annotations"]["summary"])
            assert_named(told, rule["expr"], named, rule["alert"])


def assert_named(told: Scrape, expression: str, named: list[str], where: str) -> None:
    grouped = groupings(expression)
    known = grouped or set.intersection(*(labels_of(told, found.name) for found in metrics_text.selectors(expression)))
    assert set(named) <= known, where


def test_every_alert_has_a_summary_and_a_runbook() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) == len({rule["alert"] for rule in alerts}) > 10
    for rule in alerts:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", rule["alert"].removeprefix("Reos")).lower()
        assert rule["annotations"]["runbook"] == f"docs/operations.md#alert-{name}"
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_promtool_takes_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    for kind, name in (("rules", "rules.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [promtool, "check", kind, name], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    shutil.copy(MONITORING / "rules.yml", tmp_path)
    shutil.copy(ROOT / "tests" / "alerts.yml", tmp_path)
    done = subprocess.run([promtool, "test", "rules", "alerts.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r'alertname="(\w+)"', (tmp_path / "alerts.yml").read_text()))
    assert named == {rule["alert"] for rule in rules() if "alert" in rule}


def test_grafana_finds_its_source_and_dashboard() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {source["uid"]}
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_the_docs_list_every_metric_with_its_kind_and_labels(told: Scrape) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|[^|]+\|([^|]*)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    listed = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(rows) == len(listed)
    assert listed == told.families()
