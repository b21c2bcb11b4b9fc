"""Runs the steps of the Dockerfile by hand, in a folder: what can be tried of an image where no engine is.

As a program it does all of it, with the packages downloaded and checked as the image's are:

    python tests/image_steps.py /tmp/empty-folder
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from reos.embedded import Account

ROOT = Path(__file__).parent.parent
PLAIN_USER = 10001
PLACES = ("/app", "/var/lib/reos")


@dataclass
class Image:
    """What the Dockerfile says of a container, with its paths below `root`."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop_signal: str = ""
    user: str = ""

    def start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """The image's command, as a plain user where we are root."""
        return subprocess.Popen(
            self.command, env=environment, cwd=f"{self.root}/app", stdin=subprocess.DEVNULL, start_new_session=True,
            executable=shutil.which(self.command[0], path=environment["PATH"]), **_plain_user(),
        )  # fmt: skip

    def ask_health(self, environment: dict[str, str]) -> int:
        """The exit code of the health check."""
        program = shutil.which(self.health[0], path=environment["PATH"])
        ran = subprocess.run(
            self.health, env=environment, executable=program, capture_output=True, timeout=10, **_plain_user()
        )
        return ran.returncode


def build(root: Path, packages: Path | None = None) -> Image:
    """Do what the Dockerfile says, below `root`. With `packages`, a site-packages directory lends what is locked."""
    image = Image(root)
    for word, rest in instructions():
        _STEPS[word](image, _below(root, rest), packages)
    (root / "var/lib/reos").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(root / "var/lib/reos", PLAIN_USER, PLAIN_USER)
    return image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, with continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def context() -> set[str]:
    """What .dockerignore lets in, at the top."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


def _below(root: Path, text: str) -> str:
    for place in PLACES:
        text = re.sub(rf"(?<![\w.]){re.escape(place)}\b", f"{root}{place}", text)
    return text


def _run(image: Image, rest: str, packages: Path | None) -> None:
    if "useradd" in rest:
        return  # The account and its directory: `build` makes the latter.
    if packages is not None and "--require-hashes" in rest:
        [site] = image.root.glob("app/.venv/lib/python*/site-packages")
        for own in site.glob("setuptools*"):
            shutil.rmtree(own)  # The locked one takes its place.
        (site / "lent.pth").write_text(f"{packages}\n")
        return
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(["sh", "-ec", rest], cwd=f"{image.root}/app", env=environment, check=True, capture_output=True)


def _copy(image: Image, rest: str, packages: Path | None) -> None:
    *sources, target = rest.split()
    if sources[0].startswith("--from"):
        return  # Both stages are one folder here.
    for source in sources:
        assert source in context(), f".dockerignore leaves out {source}"
        path = Path(image.root, "app", target, source if target.endswith("/") else "")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, path)


def _environment(image: Image, rest: str, packages: Path | None) -> None:
    for pair in shlex.split(rest):
        name, _, value = pair.partition("=")
        image.environment[name] = value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")


def _health(image: Image, rest: str, packages: Path | None) -> None:
    image.health = json.loads(rest.partition("CMD ")[2])


def _plain_user() -> dict[str, int]:
    """Another account where we are root, if it can reach the Python that we run on, which may lie in root's home."""
    reaches = Account(PLAIN_USER, PLAIN_USER).can_reach(Path(sys.base_prefix))
    return {"user": PLAIN_USER, "group": PLAIN_USER} if os.geteuid() == 0 and reaches else {}


_STEPS = {
    "FROM": lambda image, rest, packages: None,
    "VOLUME": lambda image, rest, packages: None,
    "EXPOSE": lambda image, rest, packages: None,
    "WORKDIR": lambda image, rest, packages: Path(rest).mkdir(exist_ok=True),
    "RUN": _run,
    "COPY": _copy,
    "ENV": _environment,
    "HEALTHCHECK": _health,
    "USER": lambda image, rest, packages: setattr(image, "user", rest),
    "STOPSIGNAL": lambda image, rest, packages: setattr(image, "stop_signal", rest),
    "CMD": lambda image, rest, packages: setattr(image, "command", json.loads(rest)),
}


if __name__ == "__main__":
    built = build(Path(sys.argv[1]).resolve())
    print(built)
