"""Write requirements.lock and requirements-dev.lock: what this environment has of all that pyproject.toml asks for.

Run by `make lock`, after the environment was brought to the wanted versions and the tests have passed in it.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HEADER = "# Written by `make lock` from pyproject.toml; do not edit.\n"


def pins(wanted: list[str]) -> dict[str, str]:
    """The distributions that `wanted` leads to, directly or not, with the versions that are installed."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        installed = distribution(name)
        found[name] = installed.version
        for wanted_extra in ("", *requirement.extras):
            if (name, wanted_extra) not in seen:
                seen.add((name, wanted_extra))
                waiting += [(Requirement(text), wanted_extra) for text in installed.requires or []]
    return found


def write(path: Path, versions: dict[str, str]) -> None:
    path.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items())))


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["build-system"]["requires"]
    runtime = build + project["project"]["dependencies"]
    write(ROOT / "requirements.lock", pins(runtime))
    write(ROOT / "requirements-dev.lock", pins(runtime + project["project"]["optional-dependencies"]["dev"]))


if __name__ == "__main__":
    main()
