-- As for properties: the trigram index works only behind a definer function, which filters on the tenant itself.
set local lock_timeout = '5s';

create function search_lead_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select id from leads
    where organization_id = current_organization_id() and deleted_at is null
        and search_text like in_patterns[1]
        and search_text like coalesce(in_patterns[2], in_patterns[1])
        and search_text like coalesce(in_patterns[3], in_patterns[1])
        and search_text like all (in_patterns)
    limit in_limit;
end;
revoke all on function search_lead_ids(text[], integer) from public;
grant execute on function search_lead_ids(text[], integer) to reos_app;
