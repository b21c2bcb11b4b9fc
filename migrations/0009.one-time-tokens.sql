-- Verification and reset links and stream tickets: single use, kept as a digest.
set local lock_timeout = '5s';

create table one_time_tokens (
    organization_id bigint not null,
    id bigint generated always as identity,
    user_id bigint not null,
    session_id bigint,
    purpose text not null check (purpose in ('verify_email', 'password_reset', 'stream_ticket')),
    token_hash bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    primary key (organization_id, id),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade,
    foreign key (organization_id, session_id) references sessions (organization_id, id) on delete cascade
);
create index one_time_tokens_by_user on one_time_tokens (organization_id, user_id, purpose);
create index one_time_tokens_by_session on one_time_tokens (organization_id, session_id);
create index one_time_tokens_by_expiry on one_time_tokens (expires_at);

alter table one_time_tokens enable row level security, force row level security;
create policy tenant on one_time_tokens to reos_app using (organization_id = (select current_organization_id()));
create policy owner on one_time_tokens to reos_owner using (true);
grant select, insert, update (used_at) on one_time_tokens to reos_app;
