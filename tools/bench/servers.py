"""The two servers that are compared: the service with all that it does, and a bare handler with the same statements."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reos import encoding
from reos.db import Database
from reos.settings import Settings
from tools.bench.recording import Script

ROOT = Path(__file__).parents[2]
POOL = 8
HUGE = 2**30
SCRIPTS = "scripts.pickle"  # in the folder of the run


def make_settings(dsn: str, data_dir: Path, owner_dsn: str = "") -> Settings:
    """Everything on, the limits out of reach."""
    values: dict[str, Any] = {
        "db_dsn": dsn,
        "db_owner_dsn": owner_dsn,
        "data_dir": data_dir,
        "jwt_secret_key": "a secret for measuring only, of no worth",
        "jwt_access_token_expire_minutes": 600,
        "rate_limit_per_minute": HUGE,
        "rate_limit_per_hour": HUGE,
        "rate_limit_per_day": HUGE,
        "db_pool_min": POOL,
        "db_pool_max": POOL,
        "log_format": "json",
    }
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def serve(kind: str, dsn: str, data_dir: Path, listener: socket.socket) -> None:
    """What a child does until it is told to stop."""
    from reos.app import create_app
    from reos.log import setup_logging
    from reos.server import serve_socket

    settings = make_settings(dsn, data_dir)
    setup_logging(settings, kind)
    app = create_app(settings) if kind == "service" else bare_app(settings, data_dir)
    serve_socket(app, listener, lambda: print("ready", flush=True))


def bare_app(settings: Settings, directory: Path) -> Any:
    """Recorded transactions without the service: `/NAME/NUMBER` runs the statements and writes the rows as JSON."""
    from sanic import HTTPResponse, Request, Sanic

    scripts: dict[str, list[Script]] = pickle.loads((directory / SCRIPTS).read_bytes())  # noqa: S301 - our own
    app = Sanic("bare", configure_logging=False)
    app.config.ACCESS_LOG = False

    @app.before_server_start
    async def connect(app: Sanic) -> None:
        database = await Database.connect(settings)
        app.ctx.pool = database.pool

    @app.after_server_stop
    async def close(app: Sanic) -> None:
        await app.ctx.pool.close()

    @app.route("/<name:str>/<number:int>", methods=["GET", "POST", "PUT"])
    async def run(request: Request, name: str, number: int) -> HTTPResponse:
        script = scripts[name][number]
        found: list[Any] = []
        if request.body:
            request.json  # noqa: B018 - parsing it is part of the work
        async with app.ctx.pool.acquire() as conn:
            await conn.execute(script.begin)
            for text, args in script.statements:
                rows = await conn.fetch(text, *args)
                found = max(found, rows, key=len)
            await conn.execute("COMMIT")
        return HTTPResponse(encoding.dumps([dict(row) for row in found]), content_type="application/json")

    return app


@contextmanager
def server(kind: str, dsn: str, data_dir: Path) -> Iterator[tuple[int, int]]:
    """A server process; its port and its pid."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    command = [sys.executable, "-m", "tools.bench.servers", kind, dsn, str(data_dir), str(listener.fileno())]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    with (data_dir / f"{kind}.stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, pass_fds=[listener.fileno()], env=environment, cwd=ROOT
        )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit((data_dir / f"{kind}.stderr").read_text())
        yield int(listener.getsockname()[1]), process.pid
    finally:
        listener.close()
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), socket.socket(fileno=int(sys.argv[4])))
