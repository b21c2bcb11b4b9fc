-- What an organisation sees of its own jobs. Procrastinate's tables know no tenant, so definer functions read them.
set local lock_timeout = '5s';

create index procrastinate_jobs_by_organization
    on procrastinate.procrastinate_jobs (((args ->> 'organization_id')::bigint), id);

-- Procrastinate's word for a state in the words of the API.
create function job_state(in_status text) returns text
language sql immutable parallel safe
return case in_status when 'todo' then 'queued' when 'doing' then 'running' when 'aborting' then 'running'
    when 'aborted' then 'cancelled' else in_status end;

-- A page of ids: jobs with ids below in_before or above in_after (null: from the end), in that direction.
create function find_jobs(in_kind text, in_state text, in_since timestamptz, in_before bigint, in_after bigint,
    in_is_descending boolean, in_limit bigint, in_offset bigint) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
begin
    if in_is_descending then
        return query
        select j.id from procrastinate_jobs j
        where (j.args ->> 'organization_id')::bigint = current_organization_id()
            and (in_kind is null or j.task_name = in_kind)
            and (in_state is null or job_state(j.status::text) = in_state)
            and (in_since is null or exists (
                select from procrastinate_events e where e.job_id = j.id and e.at >= in_since))
            and (in_before is null or j.id < in_before)
        order by j.id desc limit in_limit offset in_offset;
    else
        return query
        select j.id from procrastinate_jobs j
        where (j.args ->> 'organization_id')::bigint = current_organization_id()
            and (in_kind is null or j.task_name = in_kind)
            and (in_state is null or job_state(j.status::text) = in_state)
            and (in_since is null or exists (
                select from procrastinate_events e where e.job_id = j.id and e.at >= in_since))
            and (in_after is null or j.id > in_after)
        order by j.id limit in_limit offset in_offset;
    end if;
end $$;

create function count_jobs(in_kind text, in_state text, in_since timestamptz) returns bigint
language sql stable security definer set search_path = pg_catalog, public, procrastinate, pg_temp
return (
    select count(*) from procrastinate.procrastinate_jobs j
    where (j.args ->> 'organization_id')::bigint = current_organization_id()
        and (in_kind is null or j.task_name = in_kind)
        and (in_state is null or job_state(j.status::text) = in_state)
        and (in_since is null or exists (
            select from procrastinate.procrastinate_events e where e.job_id = j.id and e.at >= in_since))
);

-- The jobs of these ids that are the tenant's. Times and the error are those of the last attempt; a job that waits
-- for its next has no end.
create function show_jobs(in_ids bigint[]) returns table (id bigint, kind text, state text, attempts integer,
    scheduled_at timestamptz, started_at timestamptz, finished_at timestamptz, last_error text)
language sql stable security definer set search_path = pg_catalog, public, procrastinate, pg_temp
begin atomic
    select j.id, j.task_name::text, job_state(j.status::text), runs.attempts, j.scheduled_at, runs.started_at,
        case when j.status not in ('todo', 'doing', 'aborting') then runs.finished_at end, runs.error
    from procrastinate.procrastinate_jobs j
    cross join lateral (
        select count(*)::integer as attempts, max(r.started_at) as started_at, max(r.finished_at) as finished_at,
            (array_agg(r.error order by r.id desc))[1] as error
        from job_runs r
        where r.organization_id = current_organization_id() and r.job_id = j.id
    ) runs
    where (j.args ->> 'organization_id')::bigint = current_organization_id() and j.id = any (in_ids);
end;

-- A failed job runs again, with all its attempts before it. False when it is not failed (any more).
create function retry_job(in_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
begin
    update procrastinate_jobs j set status = 'todo', attempts = 0, scheduled_at = now(), worker_id = null
    where j.id = in_id and j.status = 'failed'
        and (j.args ->> 'organization_id')::bigint = current_organization_id();
    if not found then
        return false;
    end if;
    -- Workers are told of new jobs only.
    perform pg_notify('procrastinate_any_queue_v1', json_build_object('type', 'job_inserted', 'job_id', in_id)::text);
    return true;
end $$;

revoke all on function job_state(text),
    find_jobs(text, text, timestamptz, bigint, bigint, boolean, bigint, bigint),
    count_jobs(text, text, timestamptz), show_jobs(bigint[]), retry_job(bigint) from public;
grant execute on function
    find_jobs(text, text, timestamptz, bigint, bigint, boolean, bigint, bigint),
    count_jobs(text, text, timestamptz), show_jobs(bigint[]), retry_job(bigint) to reos_app;
