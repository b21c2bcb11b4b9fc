-- What keeps the queue going: jobs of dead workers run again, old ones go.
set local lock_timeout = '5s';

-- A job that goes back into the queue leaves its queueing lock behind: another may wait under it by now, and the
-- unique violation would leave the job running for ever.
create function procrastinate.drop_queueing_lock() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    new.queueing_lock := null;
    return new;
end $$;
revoke all on function procrastinate.drop_queueing_lock() from public;
create trigger drop_queueing_lock before update of status on procrastinate.procrastinate_jobs
    for each row when (new.status = 'todo' and new.queueing_lock is not null)
    execute function procrastinate.drop_queueing_lock();

-- Puts the running jobs of workers that gave no sign of life for in_after back into the queue, at once, or ends
-- them when that was the last of their attempts (in_attempts belongs to in_tasks; five for a task not named), and
-- takes the workers off the list. Procrastinate has a query for such jobs, but neither counts attempts there nor
-- keeps two rescuers apart: the second would put back what runs again already. So one at a time; the lock is taken
-- before the snapshot.
create function rescue_stalled_jobs(in_after interval, in_tasks text[], in_attempts integer[])
returns table (job_id bigint, task text, organization_id bigint, attempts integer, is_queued boolean)
language plpgsql security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('rescue_stalled_jobs', 3)) then
        return;
    end if;
    return query
    with stalled as (
        select j.id, j.attempts + 1 >= coalesce(limits.attempts, 5) as was_last
        from procrastinate_jobs j
        left join unnest(in_tasks, in_attempts) as limits (task, attempts) on limits.task = j.task_name
        where j.status = 'doing' and not exists (
            select from procrastinate_workers w where w.id = j.worker_id and w.last_heartbeat > now() - in_after)
        for update of j skip locked
    ), rescued as (
        update procrastinate_jobs j set attempts = j.attempts + 1, abort_requested = false, worker_id = null,
            scheduled_at = now(),
            status = case when j.abort_requested then 'aborted' when s.was_last then 'failed' else 'todo' end
                ::procrastinate_job_status
        from stalled s where s.id = j.id
        returning j.id, j.task_name, (j.args ->> 'organization_id')::bigint as organization_id, j.attempts,
            j.status = 'todo' as is_queued
    ), ended as (
        update job_runs r set finished_at = clock_timestamp(), error = 'The worker ended while the job ran.'
        from rescued where r.organization_id = rescued.organization_id and r.job_id = rescued.id
            and r.finished_at is null
    ), woken as (
        -- Workers are told of new jobs only; without this they would find these when they next look.
        select pg_notify('procrastinate_any_queue_v1',
            json_build_object('type', 'job_inserted', 'job_id', min(rescued.id))::text)
        from rescued where rescued.is_queued having count(*) > 0
    )
    select r.id, r.task_name::text, r.organization_id, r.attempts, r.is_queued
    from rescued r left join woken on true;
    delete from procrastinate_workers w where w.last_heartbeat <= now() - in_after;
end $$;

-- Removes up to 10,000 finished jobs with their events and says how many: those without an organisation (schedules,
-- look-ups) after a day, others after in_days, failed ones, which can be retried, after in_failed_days. Runs go
-- with their jobs.
create function purge_jobs(in_days integer, in_failed_days integer) returns bigint
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
        order by j.id limit 10000);
    get diagnostics purged = row_count;
    delete from job_runs r where r.started_at < now() - interval '1 day'
        and not exists (select from procrastinate_jobs j where j.id = r.job_id);
    return purged;
end $$;

revoke all on function rescue_stalled_jobs(interval, text[], integer[]), purge_jobs(integer, integer) from public;
grant execute on function rescue_stalled_jobs(interval, text[], integer[]), purge_jobs(integer, integer) to reos_jobs;
