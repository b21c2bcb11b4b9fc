-- A failed job that somebody retries in the moment in which it is old enough to go stays: its row is locked, and looked
-- at again, before it is removed.
set local lock_timeout = '5s';

create or replace function purge_jobs(in_days integer, in_failed_days integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
declare
    purged bigint;
begin
    if least(in_days, in_failed_days) < 1 then
        raise exception 'jobs are kept for at least a day';
    end if;
    delete from procrastinate_jobs where id in (
        select j.id from procrastinate_jobs j
        where j.status in ('succeeded', 'failed', 'cancelled', 'aborted') and not exists (
            select from procrastinate_events e where e.job_id = j.id and e.at > now() - case
                when j.args ->> 'organization_id' is null then interval '1 day'
                when j.status = 'failed' then make_interval(days => in_failed_days)
                else make_interval(days => in_days) end)
        order by j.id limit 10000
        for update of j skip locked);
    get diagnostics purged = row_count;
    delete from job_runs r where r.started_at < now() - interval '1 day'
        and not exists (select from procrastinate_jobs j where j.id = r.job_id);
    return purged;
end $$;
