"""The service's supervisor and its processes as a program, with other constants than the service has.

Usage: python -m tools.load.serve PORT PROCESSES WORKERS, with LOAD_CONSTANTS="reos.db:ACQUIRE_TIMEOUT=1 …" in the
environment. As a child: NAME FD FD.
"""

from __future__ import annotations

import importlib
import os
import sys

from reos import server


def set_constants(pairs: str) -> None:
    for pair in pairs.split():
        place, _, value = pair.partition("=")
        module_name, _, name = place.partition(":")
        module = importlib.import_module(module_name)
        setattr(module, name, type(getattr(module, name))(float(value)))


def main() -> None:
    set_constants(os.environ.get("LOAD_CONSTANTS", ""))
    if sys.argv[1].startswith("web"):
        from reos.app import create_app

        server.main(sys.argv[1:], create_app)
        return
    port, processes, workers = map(int, sys.argv[1:])
    children = server.web_children(server.bind_sockets("127.0.0.1", port, processes), ["-m", "tools.load.serve"])
    children += [server.worker_child() for _ in range(workers)]
    server.Supervisor(children, {}, on_ready=lambda: print("ready", flush=True)).run()


if __name__ == "__main__":
    main()
