"""A guided tour through the API of a running service: `make demo`, or `python tools/demo --help`.

It needs nothing but Python. Exit codes: 0, 1 (a sentence says why it could not go on), 2 (a wrong argument), 130 (left
with Ctrl-C).
"""

from __future__ import annotations

import argparse
import os
import sys

from screen import RED, Screen
from tour import Tour
from wire import Service, TourError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tools/demo", description="A guided tour through the API.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is (%(default)s)")
    parser.add_argument("--yes", action="store_true", help="do not wait for Enter between the steps")
    arguments = parser.parse_args()
    screen = Screen(pauses=not arguments.yes)
    try:
        Tour(Service(arguments.url, screen), screen).run()
    except TourError as error:
        print(screen.paint(str(error), RED), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        screen.line()
        return 130
    except BrokenPipeError:
        # Whoever read it has seen enough; nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
