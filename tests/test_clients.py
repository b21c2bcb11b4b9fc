"""Clients that public generators make from `/openapi.json`: they compile, and a round trip with them works."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api import Api
from running import ROOT
from test_images import encode, picture

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENTS = ROOT / "tests" / "clients"
REGISTRY = "https://registry.npmjs.org/"
# What npm says when there is no way to its registry.
AWAY = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|ENOTCACHED)\b")

# What both programs say when all went as it should.
SEEN = {
    "is_repeated": True,
    "pages": [2, 1, 0],
    "price": "150000.00",
    "refused": "PreconditionFailedError",
    "fields": {"address": "string_too_long", "price": "greater_than_equal"},
    "image": ["Front", True, True],
    "deal": ["sell", "lead", "140000.00", True],
    "converted": 1,
    "exported": True,
    "deleted": True,
    "gone": "ResourceNotFoundError",
}


async def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, beside the service that this process serves."""
    words = [str(word) for word in command]
    return await asyncio.to_thread(subprocess.run, words, cwd=cwd, capture_output=True, text=True, timeout=90)


async def said(*command: str | Path, cwd: Path) -> str:
    ran = await run(*command, cwd=cwd)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


async def prepare(api: Api, directory: Path, name: str) -> Path:
    """A directory with the program of a language, the document of the running service, and a picture."""
    shutil.copytree(CLIENTS / name, directory, dirs_exist_ok=True)
    (directory / "openapi.json").write_bytes((await api.http.get("/openapi.json")).content)
    (directory / "house.png").write_bytes(encode(picture(), "PNG"))
    return directory


async def test_a_python_client(api: Api, tmp_path: Path) -> None:
    home = await prepare(api, tmp_path, "python")
    (home / "generator.yaml").write_text("post_hooks: []\n")
    await said(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"),
        *("--path", "openapi.json", "--output-path", "reos_client", "--config", "generator.yaml"),
        cwd=home,
    )
    await said(sys.executable, "-m", "compileall", "-q", "reos_client", cwd=home)
    # Not with the settings of this project. What is imported is checked too, and that is all the models.
    await said(sys.executable, "-m", "mypy", "--config-file=", "--strict", "round_trip.py", cwd=home)
    assert seen(await said(sys.executable, "round_trip.py", api.url, "house.png", cwd=home)) == SEEN


async def test_a_typescript_client(api: Api, tmp_path: Path) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    home = await prepare(api, tmp_path, "typescript")
    installed = await run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", cwd=home)
    if installed.returncode and (away := AWAY.search(installed.stderr)):
        pytest.skip(f"npm cannot reach its registry ({away.group()})")
    assert installed.returncode == 0, installed.stderr
    await said("npm", "run", "generate", cwd=home)
    await said("npm", "run", "build", cwd=home)
    assert seen(await said("node", "built/round_trip.js", api.url, "house.png", cwd=home)) == SEEN


def seen(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.mark.unit
def test_the_packages_of_npm_are_pinned() -> None:
    wanted = json.loads((CLIENTS / "typescript" / "package.json").read_text())["devDependencies"]
    packages = json.loads((CLIENTS / "typescript" / "package-lock.json").read_text())["packages"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert packages.pop("")["devDependencies"] == wanted
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert package.get("resolved", REGISTRY).startswith(REGISTRY), name
