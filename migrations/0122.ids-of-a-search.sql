-- An id says which organisation it belongs to. Postgres takes the two for independent: of 655 hits of a search in one
-- of 20 organisations it expects 33, so it reads all of them and sorts them, where the first 20 in the index of the list
-- are enough.
set local lock_timeout = '5s';

create statistics properties_id_tells_organization (dependencies) on id, organization_id from properties;
create statistics leads_id_tells_organization (dependencies) on id, organization_id from leads;
create statistics deals_id_tells_organization (dependencies) on id, organization_id from deals;
create statistics portfolios_id_tells_organization (dependencies) on id, organization_id from portfolios;
create statistics campaigns_id_tells_organization (dependencies) on id, organization_id from campaigns;
create statistics users_id_tells_organization (dependencies) on id, organization_id from users;

-- ANALYZE fills them, and autovacuum comes to a large table only after many changes. An empty one has time.
do $$
declare
    searched text;
begin
    foreach searched in array array['properties', 'leads', 'deals', 'portfolios', 'campaigns', 'users'] loop
        if (select reltuples > 0 from pg_class where oid = searched::regclass) then
            execute format('analyze %I (id, organization_id)', searched);
        end if;
    end loop;
end $$;
