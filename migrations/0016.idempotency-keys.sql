-- Kept answers. The key, its answer and the work commit together.
set local lock_timeout = '5s';

create table idempotency_keys (
    organization_id bigint not null,
    user_id bigint not null,
    key text not null check (char_length(key) between 1 and 255),
    fingerprint bytea not null,
    status smallint not null,
    headers jsonb not null,
    body bytea not null,
    created_at timestamptz not null default now(),
    primary key (organization_id, user_id, key),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
create index idempotency_keys_by_creation on idempotency_keys (created_at);
alter table idempotency_keys enable row level security, force row level security;
create policy tenant on idempotency_keys to reos_app using (organization_id = (select current_organization_id()));
create policy owner on idempotency_keys to reos_owner using (true);
grant select, insert, update (fingerprint, status, headers, body, created_at) on idempotency_keys to reos_app;

-- Before log-in the scope is an HMAC of the client's address.
create table public_idempotency_keys (
    scope bytea not null,
    key text not null check (char_length(key) between 1 and 255),
    fingerprint bytea not null,
    status smallint not null,
    headers jsonb not null,
    body bytea not null,
    created_at timestamptz not null default now(),
    primary key (scope, key)
);
create index public_idempotency_keys_by_creation on public_idempotency_keys (created_at);
alter table public_idempotency_keys enable row level security, force row level security;
create policy owner on public_idempotency_keys to reos_owner using (true);

-- One round trip: the lock, then (in a snapshot taken after it) the kept answer. An insert would wait for the
-- first request and hold a connection meanwhile; the advisory lock answers at once.
create function claim_idempotency_key(in_key text,
    out is_claimed boolean, out fingerprint bytea, out status smallint, out headers jsonb, out body bytea)
language plpgsql as $$
begin
    is_claimed := pg_try_advisory_xact_lock(hashtextextended(
        current_organization_id()::text || ' ' || current_user_id()::text || ' ' || in_key, 1));
    if is_claimed then
        select k.fingerprint, k.status, k.headers, k.body
        into claim_idempotency_key.fingerprint, claim_idempotency_key.status, claim_idempotency_key.headers,
            claim_idempotency_key.body
        from idempotency_keys k
        where k.organization_id = current_organization_id() and k.user_id = current_user_id() and k.key = in_key
            and k.created_at > now() - interval '24 hours';
    end if;
end $$;

create function keep_answer(in_key text, in_fingerprint bytea, in_status smallint, in_headers jsonb, in_body bytea)
returns void language sql
begin atomic
    insert into idempotency_keys (organization_id, user_id, key, fingerprint, status, headers, body)
    values (current_organization_id(), current_user_id(), in_key, in_fingerprint, in_status, in_headers, in_body)
    on conflict (organization_id, user_id, key) do update set fingerprint = excluded.fingerprint,
        status = excluded.status, headers = excluded.headers, body = excluded.body, created_at = now();
end;

create function claim_public_idempotency_key(in_scope bytea, in_key text,
    out is_claimed boolean, out fingerprint bytea, out status smallint, out headers jsonb, out body bytea)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    is_claimed := pg_try_advisory_xact_lock(hashtextextended(encode(in_scope, 'hex') || ' ' || in_key, 2));
    if is_claimed then
        select k.fingerprint, k.status, k.headers, k.body
        into claim_public_idempotency_key.fingerprint, claim_public_idempotency_key.status,
            claim_public_idempotency_key.headers, claim_public_idempotency_key.body
        from public_idempotency_keys k
        where k.scope = in_scope and k.key = in_key and k.created_at > now() - interval '24 hours';
    end if;
end $$;

create function keep_public_answer(in_scope bytea, in_key text, in_fingerprint bytea, in_status smallint,
    in_headers jsonb, in_body bytea) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into public_idempotency_keys (scope, key, fingerprint, status, headers, body)
    values (in_scope, in_key, in_fingerprint, in_status, in_headers, in_body)
    on conflict (scope, key) do update set fingerprint = excluded.fingerprint,
        status = excluded.status, headers = excluded.headers, body = excluded.body, created_at = now();
end;

revoke all on function claim_idempotency_key(text), keep_answer(text, bytea, smallint, jsonb, bytea),
    claim_public_idempotency_key(bytea, text), keep_public_answer(bytea, text, bytea, smallint, jsonb, bytea)
    from public;
grant execute on function claim_idempotency_key(text), keep_answer(text, bytea, smallint, jsonb, bytea),
    claim_public_idempotency_key(bytea, text), keep_public_answer(bytea, text, bytea, smallint, jsonb, bytea)
    to reos_app;
