-- Addresses are unique over all organisations. These tables know no tenant, so the app role reaches them
-- through definer functions alone.
set local lock_timeout = '5s';

create table login_identities (
    email_key text primary key,
    organization_id bigint not null,
    user_id bigint not null,
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
create unique index login_identities_user_key on login_identities (organization_id, user_id);

alter table login_identities enable row level security, force row level security;
create policy tenant on login_identities to reos_app using (organization_id = (select current_organization_id()));
create policy owner on login_identities to reos_owner using (true);

-- Keyed by an HMAC of the address, so that the table says nothing of who tried.
create table login_attempts (
    address_key bytea primary key,
    failures integer not null,
    last_failure_at timestamptz not null,
    next_try_at timestamptz not null,
    locked_until timestamptz
);
alter table login_attempts enable row level security, force row level security;
create policy owner on login_attempts to reos_owner using (true);

-- Work about an address that a job does later, so that a known and an unknown address cost a request the same.
create table pending_address_lookups (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('password_reset', 'login_failed')),
    email text not null,
    email_key text not null,
    ip_address text,
    user_agent text,
    request_id text,
    created_at timestamptz not null default now()
);
alter table pending_address_lookups enable row level security, force row level security;
create policy owner on pending_address_lookups to reos_owner using (true);
