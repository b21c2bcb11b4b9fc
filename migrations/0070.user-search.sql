-- Users by words of their name, address and phone, as properties are searched.
set local lock_timeout = '5s';

alter table users add search_text text not null generated always as (lower(first_name || ' ' || last_name || ' '
    || email || ' ' || coalesce(phone, ''))) stored;
create index users_search on users using gin (organization_id, search_text gin_trgm_ops);

create function search_user_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select id from users
    where organization_id = current_organization_id()
        and search_text like in_patterns[1]
        and search_text like coalesce(in_patterns[2], in_patterns[1])
        and search_text like coalesce(in_patterns[3], in_patterns[1])
        and search_text like all (in_patterns)
    limit in_limit;
end;
revoke all on function search_user_ids(text[], integer) from public;
grant execute on function search_user_ids(text[], integer) to reos_app;
