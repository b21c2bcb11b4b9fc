"""How long the statements of analytics and statistics take in the database, under row security, at volume.

    .venv/bin/python tools/bench/analytics.py

The volume is that of `reos seed --scale 20x5000`. Every statement is run as the service's role by EXPLAIN (ANALYZE);
the figure is the median execution time.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg

from reos import embedded, migrate
from reos.db import begin_tenant, prepare_connection
from reos.embedded import SERVICE_LOGIN
from reos.seed import scale
from reos.settings import Settings
from reos.sql import load

SCALE = scale.Scale(20, 5000)
RUNS = 15
DAYS = (None, None)  # no limit of time

STATEMENTS = (
    ("leads", "get_lead_stats", ()),
    ("deals", "get_deal_stats", ()),
    ("analytics", "get_property_analytics", DAYS),
    ("analytics", "get_lead_analytics", DAYS),
    ("analytics", "get_deal_analytics", DAYS),
    ("analytics", "get_campaign_analytics", DAYS),
    ("analytics", "get_revenue_analytics", DAYS),
    ("analytics", "count_everything", DAYS),
)


async def measure(settings: Settings) -> None:
    began = time.perf_counter()
    await scale.load(settings, SCALE)
    print(f"{SCALE} was loaded in {time.perf_counter() - began:.0f} s")
    conn = await asyncpg.connect(settings.db_dsn)
    await prepare_connection(conn)
    # An organisation in the middle.
    login = await conn.fetchrow(
        "select organization_id from read_login($1, '', interval '0')", SCALE.admins[SCALE.organizations // 2]
    )
    organization_id = login["organization_id"]
    for resource, name, args in STATEMENTS:
        text = getattr(load(resource), name).text
        times = []
        for _ in range(RUNS):
            await conn.execute(begin_tenant(organization_id, read_only=True))
            plan = await conn.fetch(f"explain (analyze, timing off) {text}", *args)
            await conn.execute("COMMIT")
            times.append(float(plan[-1][0].split()[2]))
        print(f"{resource + '.' + name:<40} {statistics.median(times):8.1f} ms")
    await conn.close()


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="reos-bench-"))
    directory.chmod(0o755)
    try:
        with embedded.start(directory, durable=False) as server:
            migrate.migrate(server.owner_dsn, SERVICE_LOGIN)
            settings = Settings(_env_file=None, db_dsn=server.dsn, db_owner_dsn=server.owner_dsn)  # type: ignore[call-arg]
            asyncio.run(measure(settings))
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
