-- A session is a family of refresh tokens. The tokens are derived from its key and generation; only a
-- digest of the present one is kept.
set local lock_timeout = '5s';

create table sessions (
    organization_id bigint not null,
    id bigint generated always as identity,
    user_id bigint not null,
    generation integer not null default 0,
    refresh_hash bytea,
    rotated_at timestamptz,
    ip_address text,
    user_agent text,
    created_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    primary key (organization_id, id),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
create index sessions_by_user on sessions (organization_id, user_id, id desc);
create index sessions_by_expiry on sessions (expires_at);

alter table sessions enable row level security, force row level security;
create policy tenant on sessions to reos_app using (organization_id = (select current_organization_id()));
create policy owner on sessions to reos_owner using (true);
grant select, insert,
    update (generation, refresh_hash, rotated_at, last_used_at, expires_at, revoked_at)
    on sessions to reos_app;
