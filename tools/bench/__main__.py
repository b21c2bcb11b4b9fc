"""What the service costs, in one run: `make bench`, or ARGS="--only PUT --rounds 8 --parts ratios".

On 20 organisations with 5,000 properties, 5,000 leads and 2,000 deals each (`--scale`), one process of the service,
with all that it does for everybody (token, rate limit, authorisation in the database, validation, entity tags, audit,
events, metrics, the line in its log; only the limits are too high to be met), takes turns with a bare handler that runs
the same statements in the same kind of transaction: they are recorded from the service itself. pgbench runs them too.

Then: log-ins beside small requests, events to 2,000 and 5,000 streams, changes by 256 clients beside those by fewer,
and the mails of a campaign beside those of a bare loop. The exit code says whether the goals were met.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from reos import embedded, migrate
from reos.embedded import EmbeddedPostgres
from reos.seed import scale
from tools.bench import beside, campaigns, page, ratios, writes
from tools.bench.servers import make_settings

PARTS = ("ratios", "logins", "streams", "writes", "campaigns")


async def run(postgres: EmbeddedPostgres, directory: Path, options: argparse.Namespace) -> bool:
    """All parts; whether all goals were met."""
    volume = scale.parse(options.scale)
    await scale.load(make_settings(postgres.dsn, directory, postgres.owner_dsn), volume)
    results: list[ratios.Result] = []
    notes: list[tuple[str, bool]] = []
    if "ratios" in options.parts:
        cases = [case for case in ratios.CASES if not options.only or options.only in case.name]
        ratios.print_head()
        results = await ratios.compare(
            postgres, directory, volume, cases,
            rounds=options.rounds, clients=options.clients, seconds=options.seconds,
        )  # fmt: skip
        for name, ratio, limit in ratios.inner_ratios(results):
            notes.append((f"{name}: {ratio:.2f}, at most {limit}", ratio <= limit))
    if "logins" in options.parts:
        notes.append(await beside.log_ins(postgres, directory, volume, options.seconds))
    if "streams" in options.parts:
        notes += [await beside.fan_out(postgres, directory, number) for number in beside.STREAMS]
    if "writes" in options.parts:
        # More and shorter rounds: what others do on the machine is to meet few of them.
        notes.append(await writes.compare(postgres, directory, 3 * options.rounds, options.seconds / 2))
    if "campaigns" in options.parts:
        # A service of its own, with its worker; it waits for that without an event loop.
        notes.append(await asyncio.to_thread(campaigns.compare, campaigns.MAILS))
    for text, is_met in notes:
        print(text if is_met else f"{text}: not met")
    page.write(options.page, results, [text for text, _ in notes])
    print(f"The page with the plots is {options.page}.")
    return all(result.is_reached for result in results) and all(is_met for _, is_met in notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each target in each round")
    parser.add_argument("--clients", type=int, default=16, help="connections at a time")
    parser.add_argument("--scale", default="20x5000", help="ORGANISATIONSxPROPERTIES")
    parser.add_argument("--only", default="", help="the cases that have this in their name")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--page", type=Path, default=Path("bench.html"), help="the page with plots")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="reos-bench-"))
    directory.chmod(0o755)  # The account that Postgres runs as for root has to reach its data.
    try:
        with embedded.start(directory) as postgres:
            migrate.migrate(postgres.owner_dsn, embedded.SERVICE_LOGIN)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                is_met = runner.run(run(postgres, directory, options))
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)
    sys.exit(0 if is_met else "Not all goals were met.")


if __name__ == "__main__":
    main()
