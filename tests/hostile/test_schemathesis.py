"""The whole document against the running service with its demo data, by schemathesis, with all its checks and phases.

The short form that runs with the other tests takes the examples of every operation, a few random requests to each,
chains of linked requests, and the systematic boundary values of each tenth operation. The long form takes all of it:

    make hostile ARGS=tests/hostile/test_schemathesis.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fuzzing import IS_LONG, SEED
from running import Run, home, running

import reos.app  # noqa: F401  It fills the registry of endpoints.
from reos.middleware.endpoint import ENDPOINTS
from reos.openapi import operation_id

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.property]

HERE = Path(__file__).parent
ADMIN = ("admin@acme-realestate.com", "Admin123!")
ACCOUNTS = 60 if IS_LONG else 12
EXAMPLES = 25 if IS_LONG else 1
SCENARIOS = 300 if IS_LONG else 20
EVERY = 1 if IS_LONG else 10
SECONDS = 7200 if IS_LONG else 600

# What a request may be answered although it is as the document says.
#
# A schema cannot state that a text is blank, that a date is in the past, that an id leads nowhere or that a password
# is weak (422), that a token or the current password is wrong (400), and whether a tag is today's (412). The others
# tell of the state of the world, and the document lists them where they apply: somebody else than the right one (401,
# 403), what is not there (404), what stands against it (409), a part of the service that is away (502, 503).
STATES = ("2xx", "304", "400", "401", "403", "404", "409", "412", "422", "502", "503")
# What is refused may also be too long: a request's head and body have their limits.
REFUSALS = ("400", "401", "403", "404", "405", "409", "412", "413", "415", "422", "429", "503")
# Whether bytes are a picture, their schema cannot say either.
UPLOADS = ("create_property_image", "create_lead_document")
# A wrong password makes the next try for the same address wait; one that does not wait is told to.
PASSWORDS = ("log_in", "change_password")


def settings(phases: dict[str, bool], left_out: list[str]) -> str:
    """The run's settings as TOML; `left_out` are the operations without systematic values."""
    lines = [
        'hooks = "schemathesis_hooks"',
        f"seed = {SEED}",
        # An event stream has no end; its first event is enough.
        "max-stream-events = 1",
        "request-timeout = 30",
        "continue-on-failure = true",
        "[generation]",
        f"max-examples = {EXAMPLES}",
        'database = "none"',
        *(f"[phases.{name}]\nenabled = {str(is_on).lower()}" for name, is_on in phases.items()),
        *("[phases.stateful.generation]", f"max-examples = {SCENARIOS}"),
        *("[checks.positive_data_acceptance]", f"expected-statuses = {json.dumps(STATES)}"),
        *("[checks.negative_data_rejection]", f"expected-statuses = {json.dumps(REFUSALS)}"),
        *("[[operations]]", f"include-operation-id = {json.dumps(UPLOADS)}"),
        *("[operations.checks.positive_data_acceptance]", f"expected-statuses = {json.dumps((*STATES, '415'))}"),
    ]
    lines += ["[[operations]]", f"include-operation-id = {json.dumps(PASSWORDS)}"]
    lines += ["[operations.checks.positive_data_acceptance]", f"expected-statuses = {json.dumps((*STATES, '429'))}"]
    if left_out:
        lines += ["[[operations]]", f"include-operation-id = {json.dumps(left_out)}"]
        lines += ["[operations.phases.coverage]", "enabled = false"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Run]:
    limits = dict.fromkeys(("RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_PER_HOUR", "RATE_LIMIT_PER_DAY"), 0)
    with home() as directory, running(directory, WORKERS=1, LOG_LEVEL="WARNING", **limits) as run:
        yield run


def accounts(url: str) -> list[tuple[str, str]]:
    """Admins of the demo organisation who are nobody else's, with their passwords."""
    with httpx.Client(base_url=f"{url}/api/v1", timeout=30, verify=False) as http:
        body = dict(zip(("email", "password"), ADMIN, strict=True))
        token = http.post("/auth/login", json=body).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        roles = {role["name"]: role["id"] for role in http.get("/roles").raise_for_status().json()}
        made = [(f"{uuid4().hex}@example.com", f"A-{uuid4().hex}") for _ in range(ACCOUNTS)]
        for email, password in made:
            user = {"email": email, "password": password, "first_name": "A", "last_name": "B"}
            http.post("/users", json={**user, "role_ids": [roles["Admin"]]}).raise_for_status()
    return made


@pytest.mark.timeout(SECONDS)
def test_the_service_does_what_its_document_says(service: Run, tmp_path: Path) -> None:
    names = sorted(operation_id(endpoint) for endpoint in ENDPOINTS)
    left_out = [name for number, name in enumerate(names) if (number + SEED) % EVERY]
    phases = dict.fromkeys(("examples", "coverage", "fuzzing", "stateful"), True)
    (tmp_path / "schemathesis.toml").write_text(settings(phases, left_out))
    ran = run_schemathesis(service, tmp_path)
    print(ran.stdout)
    assert ran.returncode == 0, f"seed {SEED}\n{ran.stdout}\n{ran.stderr}\n{service.said()}"
    # All of it was tried, and nothing on the way was skipped over.
    tested = re.search(r"Tested: +(\d+)", ran.stdout)
    assert tested is not None and int(tested.group(1)) >= len(ENDPOINTS)
    assert "Traceback" not in service.said()


def run_schemathesis(service: Run, directory: Path) -> subprocess.CompletedProcess[str]:
    environment: dict[str, Any] = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "HOSTILE_URL": service.url,
        "HOSTILE_ACCOUNTS": json.dumps(accounts(service.url)),
    }
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    return subprocess.run(
        [sys.executable, "-c", program, "run", f"{service.url}/openapi.json", "--workers", "2", "--no-color"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
