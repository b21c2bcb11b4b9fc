"""A supervisor with a small app instead of the service's: what test_server.py starts, signals and kills.

Usage: standin_server.py PORT PROCESSES [NAME=VALUE ...] sets constants of reos.server. As a child: NAME FD FD.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sanic import HTTPResponse, Request, Sanic, text

from reos import server
from reos.settings import Settings


def create_app(settings: Settings) -> Sanic:  # noqa: C901 - one small handler after the other
    app = Sanic("standin", configure_logging=False)
    app.config.ACCESS_LOG = False
    app.config.AUTO_EXTEND = False
    app.config.RESPONSE_TIMEOUT = 30
    app.ctx.draining = app.ctx.replaced = False
    directory = settings.data_dir

    @app.before_server_start
    async def maybe_fail(app: Sanic) -> None:
        if (directory / "fail").exists():
            raise RuntimeError("told to fail")

    @app.after_server_stop
    async def note_the_stop(app: Sanic) -> None:
        (directory / f"stopped-{os.getpid()}").touch()

    @app.on_response
    async def close_while_draining(request: Request, response: HTTPResponse) -> None:
        if app.ctx.draining or app.ctx.replaced:
            request.stream.keep_alive = False

    @app.get("/")
    async def pid(request: Request) -> HTTPResponse:
        return text(str(os.getpid()))

    @app.get("/ready")
    async def ready(request: Request) -> HTTPResponse:
        return text("", 503 if app.ctx.draining else 200)

    @app.get("/slow/<seconds:float>")
    async def slow(request: Request, seconds: float) -> HTTPResponse:
        await asyncio.sleep(seconds)
        return text("done")

    @app.post("/body")
    async def body(request: Request) -> HTTPResponse:
        return text(str(len(request.body)))

    @app.get("/large/<size:int>")
    async def large(request: Request, size: int) -> HTTPResponse:
        return text("x" * size)

    @app.get("/pages/<size:int>")
    async def pages(request: Request, size: int) -> None:
        response = await request.respond()
        assert response is not None
        for _ in range(size // 10_000):
            await response.send(b"x" * 10_000)

    @app.get("/freeze")
    async def freeze(request: Request) -> HTTPResponse:
        (directory / f"frozen-{os.getpid()}").touch()
        os.kill(os.getpid(), 19)  # SIGSTOP: it accepts nothing any more, as if it were too busy.
        return text("")

    return app


def supervise(port: int, processes: int) -> None:
    sockets = server.bind_sockets("127.0.0.1", port, processes)
    children = server.web_children(sockets, [__file__])
    server.Supervisor(children, {}, on_ready=lambda: print("ready", flush=True)).run()


if __name__ == "__main__":
    constants = dict(pair.split("=") for pair in os.environ.get("STANDIN_CONSTANTS", "").split())
    for name, value in constants.items():
        assert hasattr(server, name)
        setattr(server, name, float(value))
    if Path(sys.argv[1]).name.startswith("web"):
        server.main(sys.argv[1:], create_app)
    else:
        supervise(int(sys.argv[1]), int(sys.argv[2]))
