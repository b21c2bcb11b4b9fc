-- Portfolios: named groups of properties. A property may be in several.
set local lock_timeout = '5s';

create table portfolios (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    name text not null check (char_length(name) between 1 and 200),
    description text,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    search_text text not null generated always as (lower(name || ' ' || coalesce(description, ''))) stored,
    primary key (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id)
);
-- One for each sort key of the list; the default comes first.
create index portfolios_by_created_at on portfolios (organization_id, created_at, id) where deleted_at is null;
create index portfolios_by_updated_at on portfolios (organization_id, updated_at, id) where deleted_at is null;
create index portfolios_by_name on portfolios (organization_id, name, id) where deleted_at is null;
create index portfolios_search on portfolios using gin (organization_id, search_text gin_trgm_ops)
    where deleted_at is null;

-- What a deleted property is in stays, so that its restore brings it back; nothing shows or counts it meanwhile.
create table portfolio_properties (
    organization_id bigint not null,
    portfolio_id bigint not null,
    property_id bigint not null,
    added_at timestamptz not null default now(),
    primary key (organization_id, portfolio_id, property_id),
    foreign key (organization_id, portfolio_id) references portfolios (organization_id, id) on delete cascade,
    foreign key (organization_id, property_id) references properties (organization_id, id) on delete cascade
);
create index portfolio_properties_by_property on portfolio_properties (organization_id, property_id);

alter table portfolios enable row level security, force row level security;
alter table portfolio_properties enable row level security, force row level security;
create policy tenant on portfolios to reos_app using (organization_id = (select current_organization_id()));
create policy tenant on portfolio_properties to reos_app using (organization_id = (select current_organization_id()));
create policy owner on portfolios to reos_owner using (true);
create policy owner on portfolio_properties to reos_owner using (true);
grant select, insert, update (name, description, metadata, updated_at, deleted_at) on portfolios to reos_app;
grant select, insert, delete on portfolio_properties to reos_app;

-- As search_property_ids: trigram indexes are not leakproof, and `like all` is no condition that an index serves.
create function search_portfolio_ids(in_patterns text[], in_limit integer) returns setof bigint
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
revoke all on function search_portfolio_ids(text[], integer) from public;
grant execute on function search_portfolio_ids(text[], integer) to reos_app;
