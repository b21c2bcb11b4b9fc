-- The failure that locks an account takes the user's row before the count, as a success and an Admin who ends a lock do:
-- the other way round the two would wait for each other.
set local lock_timeout = '5s';

create or replace function record_login_failure(in_email_key text, in_address_key bytea, in_seen integer, in_wait interval,
    in_locked boolean, in_window interval) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    at timestamptz := clock_timestamp();
begin
    if in_locked then
        perform 1
        from login_identities i join users u on u.organization_id = i.organization_id and u.id = i.user_id
        where i.email_key = in_email_key for no key update of u;
    end if;
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
