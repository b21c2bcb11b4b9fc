-- What an endpoint's deliveries are signed with, encrypted by the service. The app role has no rights on the table, so
-- that no statement over webhooks can take a secret along; it asks the functions for those of one endpoint.
set local lock_timeout = '5s';

create table webhook_secrets (
    organization_id bigint not null,
    webhook_endpoint_id bigint not null,
    secret bytea not null,
    -- The one before it counts a while longer, so that a receiver can change over.
    previous_secret bytea,
    previous_until timestamptz,
    primary key (organization_id, webhook_endpoint_id),
    foreign key (organization_id, webhook_endpoint_id) references webhook_endpoints (organization_id, id)
        on delete cascade,
    check ((previous_secret is null) = (previous_until is null))
);
alter table webhook_secrets enable row level security, force row level security;
create policy tenant on webhook_secrets to reos_app using (organization_id = (select current_organization_id()));
create policy owner on webhook_secrets to reos_owner using (true);

-- The first secret, or a new one beside the present one.
create function set_webhook_secret(in_webhook_id bigint, in_secret bytea, in_overlap interval) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into webhook_secrets as s (organization_id, webhook_endpoint_id, secret)
    values (current_organization_id(), in_webhook_id, in_secret)
    on conflict (organization_id, webhook_endpoint_id) do update set secret = excluded.secret,
        previous_secret = s.secret, previous_until = clock_timestamp() + in_overlap;
end;

-- The secrets that count now, the newest first.
create function read_webhook_secrets(in_webhook_id bigint) returns bytea[]
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select case when s.previous_until > clock_timestamp() then array[s.secret, s.previous_secret]
        else array[s.secret] end
    from webhook_secrets s
    where s.organization_id = current_organization_id() and s.webhook_endpoint_id = in_webhook_id;
end;

create function forget_webhook_secrets(in_webhook_id bigint) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from webhook_secrets
    where organization_id = current_organization_id() and webhook_endpoint_id = in_webhook_id;
end;

revoke all on function set_webhook_secret(bigint, bytea, interval), read_webhook_secrets(bigint),
    forget_webhook_secrets(bigint) from public;
grant execute on function set_webhook_secret(bigint, bytea, interval), read_webhook_secrets(bigint),
    forget_webhook_secrets(bigint) to reos_app;
