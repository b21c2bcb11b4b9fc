-- The sweep asks for one batch after the other, from the oldest file on: a file that the storage will not give up must
-- not keep those behind it. Without an argument, as the release before this one calls it, the first batch.
set local lock_timeout = '5s';

drop function list_abandoned_files();
create function list_abandoned_files(in_after bigint default 0)
returns table (organization_id bigint, file_id bigint, storage_key text)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select f.organization_id, f.id, f.storage_key from stored_files f
    where f.is_pending and f.created_at < now() - interval '1 hour' and f.id > in_after
    order by f.id limit 500;
end;
revoke all on function list_abandoned_files(bigint) from public;
grant execute on function list_abandoned_files(bigint) to reos_app;
