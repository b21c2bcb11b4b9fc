-- Most searches are for one word. The conditions for the second and third repeat the first then, and each is looked up
-- in the index, and compared with every row that is found, once more: two thirds of the time, for nothing.
set local lock_timeout = '5s';

create or replace function search_property_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select id from properties
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
            limit in_limit;
    else
        return query
            select id from properties
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
                and search_text like coalesce(in_patterns[2], in_patterns[1])
                and search_text like coalesce(in_patterns[3], in_patterns[1])
                and search_text like all (in_patterns)
            limit in_limit;
    end if;
end $$;

create or replace function search_lead_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select id from leads
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
            limit in_limit;
    else
        return query
            select id from leads
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
                and search_text like coalesce(in_patterns[2], in_patterns[1])
                and search_text like coalesce(in_patterns[3], in_patterns[1])
                and search_text like all (in_patterns)
            limit in_limit;
    end if;
end $$;

create or replace function search_portfolio_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select id from portfolios
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
            limit in_limit;
    else
        return query
            select id from portfolios
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
                and search_text like coalesce(in_patterns[2], in_patterns[1])
                and search_text like coalesce(in_patterns[3], in_patterns[1])
                and search_text like all (in_patterns)
            limit in_limit;
    end if;
end $$;

create or replace function search_campaign_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select id from campaigns
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
            limit in_limit;
    else
        return query
            select id from campaigns
            where organization_id = current_organization_id() and deleted_at is null
                and search_text like in_patterns[1]
                and search_text like coalesce(in_patterns[2], in_patterns[1])
                and search_text like coalesce(in_patterns[3], in_patterns[1])
                and search_text like all (in_patterns)
            limit in_limit;
    end if;
end $$;

create or replace function search_user_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select id from users
            where organization_id = current_organization_id()
                and search_text like in_patterns[1]
            limit in_limit;
    else
        return query
            select id from users
            where organization_id = current_organization_id()
                and search_text like in_patterns[1]
                and search_text like coalesce(in_patterns[2], in_patterns[1])
                and search_text like coalesce(in_patterns[3], in_patterns[1])
                and search_text like all (in_patterns)
            limit in_limit;
    end if;
end $$;

create or replace function search_deal_ids(in_patterns text[], in_limit integer) returns setof bigint
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    if cardinality(in_patterns) = 1 then
        return query
            select s.deal_id
            from deal_search_texts s
            join deals d on d.organization_id = s.organization_id and d.id = s.deal_id and d.deleted_at is null
            where s.organization_id = current_organization_id()
                and s.text like in_patterns[1]
            limit in_limit;
    else
        return query
            select s.deal_id
            from deal_search_texts s
            join deals d on d.organization_id = s.organization_id and d.id = s.deal_id and d.deleted_at is null
            where s.organization_id = current_organization_id()
                and s.text like in_patterns[1]
                and s.text like coalesce(in_patterns[2], in_patterns[1])
                and s.text like coalesce(in_patterns[3], in_patterns[1])
                and s.text like all (in_patterns)
            limit in_limit;
    end if;
end $$;
