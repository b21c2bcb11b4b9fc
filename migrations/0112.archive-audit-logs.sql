-- Old audit rows leave the database once they are archived. The app role may only add to them and read them.
set local lock_timeout = '5s';

create index audit_logs_by_age on audit_logs (created_at);

-- The organisations that have audit rows older than so many days: ids alone.
create function list_old_audit_logs(in_days integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select distinct a.organization_id from audit_logs a where a.created_at < now() - make_interval(days => in_days);
end;

-- Removes the tenant's rows with ids from in_first to in_last that are older than so many days; how many there were.
create function purge_audit_logs(in_days integer, in_first bigint, in_last bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    purged bigint;
begin
    if in_days < 1 then
        raise exception 'audit rows are kept for at least a day';
    end if;
    delete from audit_logs a
    where a.organization_id = current_organization_id() and a.id between in_first and in_last
        and a.created_at < now() - make_interval(days => in_days);
    get diagnostics purged = row_count;
    return purged;
end $$;

revoke all on function list_old_audit_logs(integer), purge_audit_logs(integer, bigint, bigint) from public;
grant execute on function list_old_audit_logs(integer), purge_audit_logs(integer, bigint, bigint) to reos_app;
