-- Where something is due and no job waits to send it: retries whose time has come, attempts whose worker died. Over all
-- organisations; ids alone. Endpoints that are switched off keep what is due until they are on again.
set local lock_timeout = '5s';

create function list_due_webhooks(in_limit bigint) returns table (organization_id bigint, webhook_id bigint)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select w.organization_id, w.id
    from webhook_endpoints w
    where w.is_active
        and exists (select from webhook_logs l where l.organization_id = w.organization_id
            and l.webhook_endpoint_id = w.id and l.next_attempt_at <= now())
        and not exists (select from procrastinate.procrastinate_jobs j
            where j.status = 'todo' and j.queueing_lock = 'send_webhook:' || w.id)
    limit in_limit;
end;

revoke all on function list_due_webhooks(bigint) from public;
grant execute on function list_due_webhooks(bigint) to reos_app;
