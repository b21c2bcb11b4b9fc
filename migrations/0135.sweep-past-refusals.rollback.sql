set local lock_timeout = '5s';

drop function list_abandoned_files(bigint);
create function list_abandoned_files() returns table (organization_id bigint, file_id bigint, storage_key text)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select f.organization_id, f.id, f.storage_key from stored_files f
    where f.is_pending and f.created_at < now() - interval '1 hour'
    order by f.created_at limit 500;
end;
revoke all on function list_abandoned_files() from public;
grant execute on function list_abandoned_files() to reos_app;
