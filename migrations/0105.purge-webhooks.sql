-- Deliveries are kept as long as events.
set local lock_timeout = '5s';

-- Removes up to 10,000 deliveries and says how many: those older than in_days (but for what is still tried), and those
-- of endpoints that were deleted an hour ago, so that whoever was at work with them has ended. Then the endpoints.
create function purge_webhooks(in_days integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    purged bigint;
begin
    if in_days < 1 then
        raise exception 'deliveries are kept for at least a day';
    end if;
    delete from webhook_logs l using (
        select old.organization_id, old.id
        from webhook_endpoints w
        cross join lateral (
            select k.organization_id, k.id from webhook_logs k
            where k.organization_id = w.organization_id and k.webhook_endpoint_id = w.id
                and k.created_at < case when w.deleted_at < now() - interval '1 hour' then 'infinity'
                    else now() - make_interval(days => in_days) end
                and (k.next_attempt_at is null or not w.is_active)
            order by k.created_at, k.id limit 10000
            for update skip locked
        ) old
        limit 10000
    ) gone
    where l.organization_id = gone.organization_id and l.id = gone.id;
    get diagnostics purged = row_count;
    delete from webhook_endpoints w
    where w.deleted_at < now() - interval '1 hour' and not exists (select from webhook_logs l
        where l.organization_id = w.organization_id and l.webhook_endpoint_id = w.id);
    return purged;
end $$;

revoke all on function purge_webhooks(integer) from public;
grant execute on function purge_webhooks(integer) to reos_app;
