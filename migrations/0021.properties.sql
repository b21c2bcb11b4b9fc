-- Properties. Enumerations are checked text and sort keys are integers, text and times, because neither the
-- comparison of numeric and of enum values nor a cast from numeric is leakproof: under row security no index would
-- serve them.
set local lock_timeout = '5s';

create table properties (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    address text not null check (char_length(address) between 1 and 500),
    city text not null check (char_length(city) between 1 and 100),
    state text not null check (char_length(state) between 1 and 50),
    zip_code text not null check (char_length(zip_code) between 1 and 20),
    country text not null default 'USA' check (char_length(country) between 1 and 50),
    latitude numeric(10, 7) check (latitude between -90 and 90),
    longitude numeric(10, 7) check (longitude between -180 and 180),
    property_type text not null check (property_type in ('single_family', 'multi_family', 'condo', 'townhouse',
        'land', 'commercial', 'industrial', 'mixed_use')),
    status text not null default 'available'
        check (status in ('available', 'under_contract', 'sold', 'rented', 'off_market')),
    price numeric(12, 2) check (price >= 0 and price <> 'NaN'),
    bedrooms integer check (bedrooms >= 0),
    bathrooms numeric(3, 1) check (bathrooms >= 0 and bathrooms <> 'NaN'),
    square_feet integer check (square_feet >= 0),
    lot_size integer check (lot_size >= 0),
    year_built integer check (year_built between 1800 and 2100),
    description text,
    features jsonb not null default '[]' check (jsonb_typeof(features) = 'array'),
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    price_cents bigint generated always as ((price * 100)::bigint) stored,
    latitude_degrees float8 generated always as (latitude::float8) stored,
    longitude_degrees float8 generated always as (longitude::float8) stored,
    search_text text not null generated always as (lower(address || ' ' || city || ' ' || state || ' ' || zip_code
        || ' ' || coalesce(description, ''))) stored,
    primary key (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id)
);

-- One for each sort key of the list; the default comes first.
create index properties_by_created_at on properties (organization_id, created_at, id) where deleted_at is null;
create index properties_by_updated_at on properties (organization_id, updated_at, id) where deleted_at is null;
create index properties_by_price on properties (organization_id, price_cents, id) where deleted_at is null;
create index properties_by_bedrooms on properties (organization_id, bedrooms, id) where deleted_at is null;
create index properties_by_square_feet on properties (organization_id, square_feet, id) where deleted_at is null;
create index properties_by_year_built on properties (organization_id, year_built, id) where deleted_at is null;
create index properties_by_city on properties (organization_id, city, id) where deleted_at is null;
create index properties_by_status on properties (organization_id, status, id) where deleted_at is null;
-- near= narrows by latitude first.
create index properties_by_latitude on properties (organization_id, latitude_degrees) where deleted_at is null;
create index properties_search on properties using gin (organization_id, search_text gin_trgm_ops)
    where deleted_at is null;

alter table properties enable row level security, force row level security;
create policy tenant on properties to reos_app using (organization_id = (select current_organization_id()));
create policy owner on properties to reos_owner using (true);
grant select, insert, update on properties to reos_app;
