"""What docs/operations.md says: its names against the code, its proxy and a new secret against a running service."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml
from api import served_api
from conftest import TestDatabase
from running import ROOT, free_port, until

from reos.__main__ import _parser
from reos.jobs.app import TASKS
from reos.middleware.endpoint import ENDPOINTS
from reos.settings import Settings

pytestmark = pytest.mark.integration

GUIDE = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = {name.upper() for name in Settings.model_fields}
# What start.sh writes and compose.yaml reads, beside settings.
OF_COMPOSE = {"PUBLISH", "COMPOSE_PROFILES", "GRAFANA_USER", "GRAFANA_PASSWORD", "SERVICE_PASSWORD"}


def anchors(text: str) -> set[str]:
    """The names by which headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# --- Names ------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_table_has_every_setting_once() -> None:
    table = GUIDE.partition("| group | settings |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([A-Z0-9_]+)`", table)) == sorted(SETTINGS)


@pytest.mark.unit
def test_other_names_in_capitals_are_settings_too() -> None:
    names = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)", GUIDE)) | set(re.findall(r"\b([A-Z0-9_]{4,})=", GUIDE))
    assert names - SETTINGS <= OF_COMPOSE


@pytest.mark.unit
def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "monitoring" / "rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    named = {rule["annotations"]["runbook"] for rule in alerts}
    assert named == {f"docs/operations.md#{name}" for name in anchors(GUIDE) if name.startswith("alert-")}


@pytest.mark.unit
def test_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", GUIDE):
        path = ROOT / "docs" / target if target else ROOT / "docs" / "operations.md"
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.unit
def test_commands_routes_and_jobs_are_there() -> None:
    commands = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert set(re.findall(r"`reos ([a-z-]+)", GUIDE)) <= set(commands or ())  # type: ignore[arg-type]
    known = {(endpoint.method, re.sub(r"{\w+}", "{id}", endpoint.path)) for endpoint in ENDPOINTS}
    for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^\s`?]+)", GUIDE):
        if path != "/bounces/generic":
            assert (method, path if path.startswith("/api/v1") else f"/api/v1{path}") in known, path
    retention = GUIDE.partition("## Retention")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(cleanup_\w+)`", retention)) == {name for name in TASKS if name.startswith("cleanup_")}


@pytest.mark.unit
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["reos", "reos-worker"])
def test_the_units_are_fit_for_systemd(name: str, tmp_path: Path) -> None:
    program = tmp_path / "reos"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (ROOT / "deploy" / "systemd" / f"{name}.service").read_text()
    assert f"ExecStart=/opt/reos/.venv/bin/reos {'worker' if name == 'reos-worker' else 'serve'}\n" in text
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace("/opt/reos/.venv/bin/reos", str(program)).replace("=/opt/reos", f"={tmp_path}"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert [line for line in ran.stderr.splitlines() if str(unit) in line] == []


# --- The proxy --------------------------------------------------------------------------------------------------


@contextmanager
def proxied(directory: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """nginx with deploy/nginx/reos.conf and a certificate of its own; its plain port and its TLS port."""
    plain, tls = free_port(), free_port()
    certificate, key = directory / "fullchain.pem", directory / "privkey.pem"
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=crm.example.com"
    subprocess.run(
        ["openssl", *make.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    site = (ROOT / "deploy" / "nginx" / "reos.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{tls} ssl"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
        ("/etc/ssl/reos", str(directory)),
    ):
        assert old in site
        site = site.replace(old, new)
    (directory / "site.conf").write_text(site)
    main = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # No other account reaches the test's folder.
    main.write_text(
        f"{user} daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;\n"
        f"events {{}} http {{ access_log off; {_folders(directory)} include {directory}/site.conf; }}\n"
    )
    command = ["nginx", "-p", str(directory), "-c", str(main)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(tls))
        yield plain, tls
    finally:
        process.terminate()
        process.wait(10)


def _folders(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_proxy_s_configuration_does_what_the_guide_says(database: TestDatabase, tmp_path: Path) -> None:
    public = "https://crm.example.com"
    async with served_api(database, tmp_path, public_url=public, proxies_count=1) as api:
        admin = await api.register()
        with proxied(tmp_path, int(api.url.rsplit(":", 1)[1])) as (plain, tls):
            async with (
                httpx.AsyncClient(verify=False, base_url=f"https://127.0.0.1:{tls}", timeout=15) as outside,
            ):
                moved = await outside.get(f"http://127.0.0.1:{plain}/docs", headers={"Host": "crm.example.com"})
                assert (moved.status_code, moved.headers["location"]) == (301, f"{public}/docs")
                # A program is not led on: it shall notice that it sends its token in the clear.
                assert (await outside.get(f"http://127.0.0.1:{plain}/api/v1/auth/me")).status_code == 403
                assert (await outside.get("/metrics")).status_code == 404
                answer = await outside.get("/healthz")
                assert answer.status_code == 200
                assert "max-age" in answer.headers["strict-transport-security"]

                assert admin.account is not None
                headers = admin.account.headers(api.settings)
                # Whom a client claims to be does not count.
                lead = {"first_name": "A", "last_name": "B", "source": "other"}
                claimed = {**headers, "X-Forwarded-For": "203.0.113.9"}
                assert (await outside.post("/api/v1/leads", json=lead, headers=claimed)).status_code == 201
                rows = (await outside.get("/api/v1/audit-logs?resource_type=lead", headers=headers)).json()["items"]
                assert rows[0]["ip_address"] == "127.0.0.1"

                # Larger than nginx's own limit.
                uploaded = await outside.post(
                    f"/api/v1/leads/{rows[0]['resource_id']}/documents",
                    headers=headers,
                    data={"title": "x"},
                    files={"file": ("x", bytes(2_000_000))},
                )
                assert uploaded.status_code == 201
                async with outside.stream("GET", "/api/v1/sse/stream?last_event_id=0", headers=headers) as stream:
                    async with asyncio.timeout(5):
                        lines = stream.aiter_lines()
                        while "lead.created" not in await anext(lines):
                            pass


# --- A new signing secret ---------------------------------------------------------------------------------------


async def test_a_new_signing_secret_ends_what_the_guide_says(database: TestDatabase, tmp_path: Path) -> None:
    person = {"email": "ann@secret.example", "password": "correct Horse 7", "first_name": "A", "last_name": "L"}
    async with served_api(database, tmp_path) as api:
        session = (await api.http.post("/api/v1/auth/register", json=person)).json()
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        hook = {"url": "https://example.com/hook", "event_types": ["lead.created"]}
        webhook = (await api.http.post("/api/v1/webhooks", json=hook, headers=headers)).json()["id"]
    async with served_api(database, tmp_path, jwt_secret_key="n" * 32) as api:
        assert (await api.http.get("/api/v1/auth/me", headers=headers)).status_code == 401
        old = {"refresh_token": session["refresh_token"]}
        assert (await api.http.post("/api/v1/auth/refresh", json=old)).status_code == 401
        login = {name: person[name] for name in ("email", "password")}
        session = (await api.http.post("/api/v1/auth/login", json=login)).json()
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        rotated = await api.http.post(f"/api/v1/webhooks/{webhook}/rotate-secret", headers=headers)
        assert rotated.status_code == 200
        assert rotated.json()["secret"].startswith("whsec_")


@pytest.mark.unit
def test_the_access_log_has_the_documented_fields() -> None:
    section = GUIDE.partition("## Logs")[2].partition("\n## ")[0]
    documented = {
        name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    source = (ROOT / "reos" / "middleware" / "requests.py").read_text()
    written = set(re.findall(r'fields(?:\["|: dict\[str, Any\] = \{")(\w+)"', source))
    assert documented == written | {"time", "level", "component", "pid"}
