-- How a request puts a job into the queue, in its own transaction.
set local lock_timeout = '5s';

-- The tenant comes from the transaction, never from the caller (null before log-in). Null instead of an id when a
-- waiting job holds the queueing lock: a unique violation would abort the caller's transaction. Procrastinate gives
-- no promise about the function called here, so its version is pinned and a test runs this.
create function defer_job(in_task text, in_queue text, in_args jsonb, in_lock text, in_queueing_lock text,
    in_scheduled_at timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
begin
    -- Arguments can be read by whoever works on the queue and stay for days.
    if exists (select from jsonb_each(in_args) a where jsonb_typeof(a.value) not in ('number', 'boolean', 'null')) then
        raise exception 'a job takes ids, never a text' using errcode = 'invalid_parameter_value';
    end if;
    return (procrastinate_defer_jobs_v1(array[row(in_queue, in_task, 0, in_lock, in_queueing_lock,
        in_args || jsonb_build_object('organization_id', current_organization_id()),
        in_scheduled_at)::procrastinate_job_to_defer_v1]))[1];
exception when unique_violation then
    return null;
end $$;

revoke all on function defer_job(text, text, jsonb, text, text, timestamptz) from public;
grant execute on function defer_job(text, text, jsonb, text, text, timestamptz) to reos_app;
