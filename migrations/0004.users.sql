-- People. Their password hashes stand apart, where the app role has no rights at all.
set local lock_timeout = '5s';

create table users (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    email text not null check (char_length(email) <= 255),
    first_name text not null check (char_length(first_name) between 1 and 100),
    last_name text not null check (char_length(last_name) between 1 and 100),
    phone text check (char_length(phone) <= 20),
    is_active boolean not null default true,
    is_verified boolean not null default false,
    is_superuser boolean not null default false,
    locked_until timestamptz,
    last_login timestamptz,
    preferences jsonb not null default '{"email_notifications": true, "daily_report": false}',
    -- What the user's roles add up to, kept by triggers, so that authorising a request is a key lookup.
    permissions text[] not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (organization_id, id)
);
create index users_by_creation on users (organization_id, created_at desc, id desc);

alter table users enable row level security, force row level security;
create policy tenant on users to reos_app using (organization_id = (select current_organization_id()));
create policy owner on users to reos_owner using (true);
grant select, insert (organization_id, email, first_name, last_name, phone, is_verified, preferences),
    update (email, first_name, last_name, phone, is_active, is_verified, locked_until, last_login, preferences, updated_at)
    on users to reos_app;

create table user_credentials (
    organization_id bigint not null,
    user_id bigint not null,
    password_hash text not null,
    changed_at timestamptz not null default now(),
    primary key (organization_id, user_id),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
alter table user_credentials enable row level security, force row level security;
create policy tenant on user_credentials to reos_app using (organization_id = (select current_organization_id()));
create policy owner on user_credentials to reos_owner using (true);
