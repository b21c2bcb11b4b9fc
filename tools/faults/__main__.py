"""`make faults`, or PYTHONPATH=tests python -m tools.faults [--minutes 10] [--seed 7] [--faults kill-server,crowd]."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import uvloop
from running import home

from tools.faults.checks import Evidence, check_all
from tools.faults.driver import KINDS
from tools.faults.run import Options, run, summary
from tools.faults.service import Service

SHOWN = 8  # violations of each check


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description="Load, faults, and what must be true afterwards.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--faults", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--pause", type=float, default=5, help="seconds between two faults, on average")
    parser.add_argument("--clients", type=int, default=5, help="of each organisation")
    parser.add_argument("--keep", type=Path, help="a folder for logs and tables, when something was wrong")
    parsed = parser.parse_args()
    kinds = [name for name in parsed.faults.split(",") if name]
    if strange := set(kinds) - set(KINDS):
        parser.error(f"there is no fault {', '.join(strange)}")
    options = Options(parsed.seed, parsed.minutes * 60, kinds, parsed.pause, clients=parsed.clients)
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    with home() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        evidence = runner.run(run(options, directory, lambda text: print(text, flush=True)))
        began = time.monotonic()
        violations = check_all(evidence)
        print(f"\nchecked in {time.monotonic() - began:.1f} s", *summary(evidence), sep="\n")
        if violations and parsed.keep:
            keep(evidence, Service(directory), parsed.keep)
    shown: Counter[str] = Counter()
    print(f"\n{len(violations)} violations")
    for violation in violations:
        shown[violation.check] += 1
        if shown[violation.check] <= SHOWN:
            print(f"  {violation.check}: {violation.text[:1500]}")
    for check, number in shown.items():
        if number > SHOWN:
            print(f"  {check}: {number - SHOWN} more")
    return 1 if violations else 0


def keep(evidence: Evidence, service: Service, folder: Path) -> None:
    """Write what the service and Postgres have logged, and the copy of the database, one JSON object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*service.directory.glob("output-*"), *service.layout.home.glob("log/*")):
        (folder / path.name).write_bytes(path.read_bytes())
    for table, rows in evidence.tables.items():
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
