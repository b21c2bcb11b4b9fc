-- What /health tells of the queue: three numbers over all organisations and nothing else.
set local lock_timeout = '5s';

-- A worker counts for 30 s after its last sign of life. Queued is what could run now; its age is since it was
-- deferred or, for a scheduled job, since its time came. Unscheduled jobs run in the order of their ids, so the
-- lowest id is the oldest.
create function job_health(out workers bigint, out queued bigint, out oldest_seconds double precision)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with due as (
        select count(*) as queued, min(j.id) filter (where j.scheduled_at is null) as first_id,
            min(j.scheduled_at) as first_scheduled_at
        from procrastinate.procrastinate_jobs j
        where j.status = 'todo' and (j.scheduled_at is null or j.scheduled_at <= now())
    )
    select (select count(*) from procrastinate.procrastinate_workers w where w.last_heartbeat > now() - interval '30 seconds'),
        due.queued,
        coalesce(round(extract(epoch from now() - least(due.first_scheduled_at, (select min(e.at)
            from procrastinate.procrastinate_events e where e.job_id = due.first_id and e.type = 'deferred'))), 2), 0)
            ::double precision
    from due;
end;

revoke all on function job_health() from public;
grant execute on function job_health() to reos_app;
