-- The extensions behind search, and the functions that tell a policy whose transaction this is.
set local lock_timeout = '5s';

create extension if not exists pg_trgm;
create extension if not exists btree_gin;

-- Null outside a tenant transaction (a setting that has ended reads as ''), so that every policy fails closed.
create function current_organization_id() returns bigint
language sql stable parallel safe
return nullif(current_setting('reos.organization_id', true), '')::bigint;

create function current_user_id() returns bigint
language sql stable parallel safe
return nullif(nullif(current_setting('reos.user_id', true), ''), '0')::bigint;

revoke all on function current_organization_id(), current_user_id() from public;
grant execute on function current_organization_id(), current_user_id() to reos_app;
