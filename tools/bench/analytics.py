"""How long the statements of analytics and statistics take in the database, under row security, at volume.

    .venv/bin/python tools/bench/analytics.py

20 organisations, each with 5,000 properties, 5,000 leads, 2,000 deals with three stage changes and two transactions
each. Every statement is run as the service's role by EXPLAIN (ANALYZE); the figure is the median execution time.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from pathlib import Path

import asyncpg

from reos import embedded, migrate
from reos.db import begin_tenant, prepare_connection
from reos.embedded import SERVICE_LOGIN
from reos.sql import load

ORGANIZATIONS = 20
RUNS = 15
DAYS = (None, None)  # no limit of time

FILL = """
insert into organizations (name, slug, settings)
    select 'O' || n, 'o' || n, '{"timezone": "America/New_York"}' from generate_series(1, 20) n;
insert into event_counters (organization_id) select id from organizations;
insert into properties (organization_id, address, city, state, zip_code, property_type, status, price, created_at)
    select o.id, n || ' Main St', 'City ' || n % 40, 'TX', '78701',
        (array['single_family', 'condo', 'land', 'townhouse'])[1 + n % 4], (array['available', 'sold'])[1 + n % 2],
        n * 100, now() - make_interval(hours => n) from organizations o, generate_series(1, 5000) n;
insert into leads (organization_id, first_name, last_name, source, status, score, created_at)
    select o.id, 'F' || n, 'L' || n, (array['website', 'referral', 'event'])[1 + n % 3],
        (array['new', 'converted', 'lost', 'qualified'])[1 + n % 4], n % 101, now() - make_interval(hours => n)
    from organizations o, generate_series(1, 5000) n;
insert into deals (organization_id, property_id, deal_type, stage, value, closed_at, created_at)
    select p.organization_id, p.id, (array['buy', 'sell', 'lease'])[1 + p.n % 3],
        (array['lead', 'proposal', 'closed_lost', 'negotiation'])[1 + p.n % 4], 1000 + p.n,
        case when p.n % 4 = 2 then now() end, now() - make_interval(hours => p.n::integer)
    from (select organization_id, id, row_number() over (partition by organization_id order by id) n from properties) p
    where p.n <= 2000;
insert into deal_stage_changes (organization_id, deal_id, old_stage, duration_seconds, new_stage, changed_at)
    select d.organization_id, d.id, case when n > 1 then 'lead' end,
        case when n > 1 then 3600 end, case n when 1 then 'lead' when 2 then 'proposal' else d.stage end,
        d.created_at + make_interval(hours => n)
    from deals d, generate_series(1, 3) n;
insert into transactions (organization_id, deal_id, transaction_type, amount, transaction_date)
    select d.organization_id, d.id, (array['sale', 'commission', 'expense'])[1 + (d.id + n) % 3], 100 + n,
        (now() - make_interval(days => (d.id % 700)::integer))::date
    from deals d, generate_series(1, 2) n;
"""

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


async def fill(superuser_dsn: str) -> int:
    """An organisation in the middle."""
    conn = await asyncpg.connect(superuser_dsn)
    await conn.execute("set session_replication_role = replica;" + FILL)
    await conn.execute("vacuum (analyze)")
    found: int = await conn.fetchval("select id from organizations order by id offset $1 limit 1", ORGANIZATIONS // 2)
    await conn.close()
    return found


async def measure(dsn: str, organization_id: int) -> None:
    conn = await asyncpg.connect(dsn)
    await prepare_connection(conn)
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
            # On the database of the service, as superuser: bulk rows without triggers.
            organization_id = asyncio.run(fill(server.layout.dsn("postgres", embedded.DATABASE)))
            asyncio.run(measure(server.dsn, organization_id))
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
