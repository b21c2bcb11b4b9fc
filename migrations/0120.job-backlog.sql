-- What /metrics tells of the queue beside what /health tells (job_health): four numbers over all organisations.
set local lock_timeout = '5s';

-- Nothing else finds the failed ones among all that are kept.
create index procrastinate_jobs_failed on procrastinate.procrastinate_jobs (id) where status = 'failed';

-- Few jobs run at a time, so looking up when each began is cheap.
create function job_backlog(out scheduled bigint, out running bigint, out running_oldest_seconds double precision,
    out failed bigint)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select
        (select count(*) from procrastinate.procrastinate_jobs j where j.status = 'todo' and j.scheduled_at > now()),
        (select count(*) from procrastinate.procrastinate_jobs j where j.status = 'doing'),
        coalesce((select round(extract(epoch from now() - min(runs.began_at)), 2) from (
            select (select max(e.at) from procrastinate.procrastinate_events e
                where e.job_id = j.id and e.type = 'started') as began_at
            from procrastinate.procrastinate_jobs j where j.status = 'doing') runs), 0)::double precision,
        (select count(*) from procrastinate.procrastinate_jobs j where j.status = 'failed');
end;

revoke all on function job_backlog() from public;
grant execute on function job_backlog() to reos_app;
