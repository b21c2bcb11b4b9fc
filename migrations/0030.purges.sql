-- What cleaning jobs call: each refuses whatever is still inside its retention and says how many rows went.
set local lock_timeout = '5s';

create function purge_idempotency_keys() returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with tenant as (
        delete from idempotency_keys where created_at < now() - interval '24 hours' returning 1
    ), public_keys as (
        delete from public_idempotency_keys where created_at < now() - interval '24 hours' returning 1
    )
    select (select count(*) from tenant) + (select count(*) from public_keys);
end;

-- The newest event of an organisation stays, so that a stream can tell too old from too new.
create function purge_events(in_days integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    purged bigint;
begin
    if in_days < 1 then
        raise exception 'events are kept for at least a day';
    end if;
    delete from events e using event_counters c
    where e.created_at < now() - make_interval(days => in_days)
        and c.organization_id = e.organization_id and e.id < c.last_id;
    get diagnostics purged = row_count;
    return purged;
end $$;

-- An ended session is kept for a day, a used or expired token too; attempts go when they no longer count.
create function purge_sessions() returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with tokens as (
        delete from one_time_tokens
        where expires_at < now() - interval '1 day' or used_at < now() - interval '1 day' returning 1
    ), ended as (
        delete from sessions s
        where (s.expires_at < now() - interval '1 day' or s.revoked_at < now() - interval '1 day')
            and not exists (select from one_time_tokens t
                where t.organization_id = s.organization_id and t.session_id = s.id)
        returning 1
    ), attempts as (
        delete from login_attempts where last_failure_at < now() - interval '1 day' returning 1
    ), lookups as (
        delete from pending_address_lookups where created_at < now() - interval '7 days' returning 1
    )
    select (select count(*) from tokens) + (select count(*) from ended) + (select count(*) from attempts)
        + (select count(*) from lookups);
end;

-- Files whose upload never became a row.
create function list_abandoned_files() returns table (organization_id bigint, file_id bigint, storage_key text)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select f.organization_id, f.id, f.storage_key from stored_files f
    where f.is_pending and f.created_at < now() - interval '1 hour'
    order by f.created_at limit 500;
end;

revoke all on function purge_idempotency_keys(), purge_events(integer), purge_sessions(), list_abandoned_files()
    from public;
grant execute on function purge_idempotency_keys(), purge_events(integer), purge_sessions(), list_abandoned_files()
    to reos_app;
