"""The tour of the README, pasted into a shell beside a service that was started as the README says."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from running import ROOT, Run, home

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HOST = "http://127.0.0.1:8000"


def tour() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## A five-minute tour")[2].partition("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    assert HOST in found[1]
    return found[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_tour_works_when_pasted() -> None:
    with home() as directory:
        service = Run(directory, SEED_DEMO="false").wait_ready()
        try:
            shell = subprocess.run(
                ["sh"],
                input=tour().replace(HOST, service.url),
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=100,
            )
        finally:
            service.end()
    said = shell.stdout
    assert shell.returncode == 0, shell.stderr
    assert "verified: 204" in said
    assert re.search(r"^HTTP/1.1 201", said, re.MULTILINE)
    assert re.search(r"^idempotency-replayed: true", said, re.MULTILINE | re.IGNORECASE)
    assert '"thumbnail_url":"http' in said
    assert re.search(r'^data: {"type":"property.created"', said, re.MULTILINE)
    assert "unchanged: 304" in said
    assert "first: 200" in said
    assert "second: 412" in said
    assert re.search(r"^ *\d+ 200$", said, re.MULTILINE)
    assert re.search(r"^ *\d+ 429$", said, re.MULTILINE)
