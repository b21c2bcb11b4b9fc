set local lock_timeout = '5s';

create or replace function search_property_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select id from properties
    where organization_id = current_organization_id() and deleted_at is null
        and search_text like in_patterns[1]
        and search_text like coalesce(in_patterns[2], in_patterns[1])
        and search_text like coalesce(in_patterns[3], in_patterns[1])
        and search_text like all (in_patterns)
    limit in_limit;
end;

create or replace function search_lead_ids(in_patterns text[], in_limit integer) returns setof bigint
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

create or replace function search_portfolio_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select id from portfolios
    where organization_id = current_organization_id() and deleted_at is null
        and search_text like in_patterns[1]
        and search_text like coalesce(in_patterns[2], in_patterns[1])
        and search_text like coalesce(in_patterns[3], in_patterns[1])
        and search_text like all (in_patterns)
    limit in_limit;
end;

create or replace function search_campaign_ids(in_patterns text[], in_limit integer) returns setof bigint
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

create or replace function search_user_ids(in_patterns text[], in_limit integer) returns setof bigint
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

create or replace function search_deal_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select s.deal_id
    from deal_search_texts s
    join deals d on d.organization_id = s.organization_id and d.id = s.deal_id and d.deleted_at is null
    where s.organization_id = current_organization_id()
        and s.text like in_patterns[1]
        and s.text like coalesce(in_patterns[2], in_patterns[1])
        and s.text like coalesce(in_patterns[3], in_patterns[1])
        and s.text like all (in_patterns)
    limit in_limit;
end;
