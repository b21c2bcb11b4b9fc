-- The tenants. The only tenant table without organization_id: its own key is the tenant.
set local lock_timeout = '5s';

create table organizations (
    id bigint generated always as identity primary key,
    name text not null check (char_length(name) between 1 and 200),
    slug text not null unique check (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' and char_length(slug) <= 100),
    settings jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

alter table organizations enable row level security, force row level security;
create policy tenant on organizations to reos_app using (id = (select current_organization_id()));
create policy owner on organizations to reos_owner using (true);
grant select, update (name, slug, settings, updated_at) on organizations to reos_app;
