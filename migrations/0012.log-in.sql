-- Log-in: read the counter and the hash, check outside, record the result only if the counter has not moved.
set local lock_timeout = '5s';

create function read_login(in_email_key text, in_address_key bytea, in_window interval,
    out organization_id bigint, out user_id bigint, out password_hash text, out is_active boolean,
    out organization_is_active boolean,
    out failures integer, out wait_seconds double precision, out locked_seconds double precision)
language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    select i.organization_id, i.user_id, c.password_hash, u.is_active, o.is_active
    into read_login.organization_id, read_login.user_id, read_login.password_hash, read_login.is_active,
        read_login.organization_is_active
    from login_identities i
    join users u on u.organization_id = i.organization_id and u.id = i.user_id
    join user_credentials c on c.organization_id = i.organization_id and c.user_id = i.user_id
    join organizations o on o.id = i.organization_id
    where i.email_key = in_email_key;
    select a.failures, extract(epoch from a.next_try_at - now()), extract(epoch from a.locked_until - now())
    into read_login.failures, wait_seconds, locked_seconds
    from login_attempts a where a.address_key = in_address_key and a.last_failure_at > now() - in_window;
    failures := coalesce(failures, 0);
    wait_seconds := greatest(coalesce(wait_seconds, 0), 0);
    locked_seconds := greatest(coalesce(locked_seconds, 0), 0);
end $$;

-- False when another try was recorded since the counter was read: then this one tells nothing.
create function record_login_failure(in_email_key text, in_address_key bytea, in_seen integer, in_wait interval,
    in_locked boolean, in_window interval) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    at timestamptz := clock_timestamp();
begin
    insert into login_attempts as a (address_key, failures, last_failure_at, next_try_at, locked_until)
    values (in_address_key, 1, at, at + in_wait, case when in_locked then at + in_window end)
    on conflict (address_key) do update set failures = in_seen + 1, last_failure_at = excluded.last_failure_at,
        next_try_at = excluded.next_try_at, locked_until = excluded.locked_until
    where case when a.last_failure_at > at - in_window then a.failures else 0 end = in_seen;
    if not found then
        return false;
    end if;
    if in_locked then
        update users u set locked_until = at + in_window
        from login_identities i
        where i.email_key = in_email_key and u.organization_id = i.organization_id and u.id = i.user_id;
    end if;
    return true;
end $$;

-- False when a failure was recorded since the counter was read.
create function record_login_success(in_address_key bytea, in_seen integer, in_window interval) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from login_attempts a where a.address_key = in_address_key
        and case when a.last_failure_at > clock_timestamp() - in_window then a.failures else 0 end = in_seen;
    return not exists (
        select from login_attempts a
        where a.address_key = in_address_key and a.last_failure_at > clock_timestamp() - in_window);
end $$;

-- A reset or an Admin clears the count.
create function clear_login_attempts(in_address_key bytea) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from login_attempts where address_key = in_address_key;
end;

create function read_password_hash(in_user_id bigint) returns text
language sql stable security definer set search_path = pg_catalog, public, pg_temp
return (select password_hash from user_credentials
    where organization_id = current_organization_id() and user_id = in_user_id);

create function set_password_hash(in_user_id bigint, in_password_hash text) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update user_credentials set password_hash = in_password_hash, changed_at = now()
    where organization_id = current_organization_id() and user_id = in_user_id;
end;

create function add_address_lookup(in_kind text, in_email text, in_email_key text, in_ip_address text,
    in_user_agent text, in_request_id text) returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into pending_address_lookups (kind, email, email_key, ip_address, user_agent, request_id)
    values (in_kind, in_email, in_email_key, in_ip_address, in_user_agent, in_request_id)
    returning id;
end;

create function take_address_lookup(in_id bigint) returns table (kind text, email text, organization_id bigint,
    user_id bigint, ip_address text, user_agent text, request_id text)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select p.kind, p.email, i.organization_id, i.user_id, p.ip_address, p.user_agent, p.request_id
    from pending_address_lookups p left join login_identities i using (email_key)
    where p.id = in_id;
end;

create function finish_address_lookup(in_id bigint) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from pending_address_lookups where id = in_id;
end;

revoke all on function read_login(text, bytea, interval),
    record_login_failure(text, bytea, integer, interval, boolean, interval),
    record_login_success(bytea, integer, interval), clear_login_attempts(bytea),
    read_password_hash(bigint), set_password_hash(bigint, text),
    add_address_lookup(text, text, text, text, text, text), take_address_lookup(bigint),
    finish_address_lookup(bigint) from public;
grant execute on function read_login(text, bytea, interval),
    record_login_failure(text, bytea, integer, interval, boolean, interval),
    record_login_success(bytea, integer, interval), clear_login_attempts(bytea),
    read_password_hash(bigint), set_password_hash(bigint, text),
    add_address_lookup(text, text, text, text, text, text), take_address_lookup(bigint),
    finish_address_lookup(bigint) to reos_app;
