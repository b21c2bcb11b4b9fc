-- Campaigns by words of their name, description and subject, as leads are searched.
set local lock_timeout = '5s';

alter table campaigns add search_text text not null generated always as (lower(name || ' ' || coalesce(description, '')
    || ' ' || coalesce(subject, ''))) stored;
create index campaigns_search on campaigns using gin (organization_id, search_text gin_trgm_ops)
    where deleted_at is null;

create function search_campaign_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select id from campaigns
    where organization_id = current_organization_id() and deleted_at is null
        and search_text like in_patterns[1]
        and search_text like coalesce(in_patterns[2], in_patterns[1])
        and search_text like coalesce(in_patterns[3], in_patterns[1])
        and search_text like all (in_patterns)
    limit in_limit;
end;
revoke all on function search_campaign_ids(text[], integer) from public;
grant execute on function search_campaign_ids(text[], integer) to reos_app;
