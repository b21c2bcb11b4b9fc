-- How events become deliveries, in the transaction and the statement that write the events.
set local lock_timeout = '5s';

-- Sees to it that a job will look at these endpoints of the tenant after this transaction has committed. One job for
-- each endpoint waits at a time, however many events there are.
--
-- Nothing is lost, because the endpoint's row is locked first, and a job takes that lock before it looks for what is due:
-- - a job that waits now starts after this transaction has ended, or waits for its end, and then sees its deliveries;
-- - a job that has the lock behind it waits no more (it was fetched before that), so that a new one is queued here.
--   Whether one waits is asked in a statement of its own, whose snapshot is younger than the lock.
-- Jobs are queued under no other lock, so the queueing lock never makes anybody wait, and its unique index never
-- refuses. The endpoints are locked in the order of their ids.
--
-- The jobs of an organisation run in two lanes: its slow endpoints wait for each other before they fill the workers.
create function wake_webhooks(in_webhook_ids bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, public, procrastinate, pg_temp as $$
declare
    wanted procrastinate_job_to_defer_v1[];
begin
    perform 1 from webhook_endpoints w
        where w.organization_id = current_organization_id() and w.id = any (in_webhook_ids)
        order by w.id for no key update;
    wanted := array(
        select row('default', 'send_webhook', 0,
            'send_webhook:' || w.organization_id || ':' || w.id % 2,
            'send_webhook:' || w.id,
            jsonb_build_object('organization_id', w.organization_id, 'webhook_id', w.id),
            null)::procrastinate_job_to_defer_v1
        from webhook_endpoints w
        where w.organization_id = current_organization_id() and w.id = any (in_webhook_ids)
            and not exists (select from procrastinate_jobs j
                where j.status = 'todo' and j.queueing_lock = 'send_webhook:' || w.id)
        order by w.id);
    if cardinality(wanted) > 0 then
        perform procrastinate_defer_jobs_v1(wanted);
    end if;
end $$;

-- Makes the deliveries of a transaction's events and wakes the jobs that send them; how many there are. Comes before
-- the events' counter, which it would hold up otherwise. Called only where some endpoint is subscribed, because the call
-- alone costs more than that look into an index.
create function queue_deliveries(in_events jsonb) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    subscribed bigint[];
    made bigint;
begin
    -- Whoever changes an endpoint meanwhile is waited for: then it says what counts.
    subscribed := array(
        select w.id from webhook_endpoints w
        where w.organization_id = current_organization_id() and w.is_active
            and w.event_types && array(select e ->> 'type' from jsonb_array_elements(in_events) e)
        order by w.id for no key update);
    insert into webhook_logs (organization_id, webhook_endpoint_id, event_type, data)
    select w.organization_id, w.id, e.event ->> 'type', e.event -> 'data'
    from jsonb_array_elements(in_events) with ordinality e (event, position)
    join webhook_endpoints w on w.organization_id = current_organization_id() and w.id = any (subscribed)
        and e.event ->> 'type' = any (w.event_types)
    order by e.position, w.id;
    get diagnostics made = row_count;
    if made > 0 then
        perform wake_webhooks(subscribed);
    end if;
    return made;
end $$;

revoke all on function wake_webhooks(bigint[]), queue_deliveries(jsonb) from public;
grant execute on function wake_webhooks(bigint[]), queue_deliveries(jsonb) to reos_app;
