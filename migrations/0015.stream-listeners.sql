-- How many event streams each web process serves for each organisation.
set local lock_timeout = '5s';

create table stream_listeners (
    organization_id bigint not null references organizations (id),
    process_id uuid not null,
    connections integer not null check (connections >= 0),
    seen_at timestamptz not null,
    primary key (organization_id, process_id)
);
create index stream_listeners_by_process on stream_listeners (process_id);
alter table stream_listeners enable row level security, force row level security;
create policy tenant on stream_listeners to reos_app using (organization_id = (select current_organization_id()));
create policy owner on stream_listeners to reos_owner using (true);
grant select on stream_listeners to reos_app;

-- A process announces its streams: all that it has, so that what it has no more goes away. Touching the
-- counter's row waits for the publishers under way: whoever comes later sees that somebody listens, and the
-- events of whoever came earlier are there for the reader that follows. Where the time that is left is long, whoever
-- set it has waited already, so that most announcements touch neither the counters nor the rows that stay as they are.
create function announce_streams(in_process_id uuid, in_organization_ids bigint[], in_connections integer[])
returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from stream_listeners l
    where (l.process_id = in_process_id and l.organization_id <> all (in_organization_ids))
        or l.seen_at < clock_timestamp() - interval '1 minute';
    insert into stream_listeners as l (organization_id, process_id, connections, seen_at)
    select a.organization_id, in_process_id, a.connections, clock_timestamp()
    from unnest(in_organization_ids, in_connections) a (organization_id, connections)
    on conflict (organization_id, process_id) do update
        set connections = excluded.connections, seen_at = excluded.seen_at
        where l.connections <> excluded.connections or l.seen_at < excluded.seen_at - interval '10 seconds';
    perform 1 from event_counters c where c.organization_id = any (in_organization_ids)
        and c.listened_until < clock_timestamp() + interval '50 seconds'
        order by c.organization_id for no key update;
    update event_counters c set listened_until = clock_timestamp() + interval '1 minute'
    where c.organization_id = any (in_organization_ids)
        and c.listened_until < clock_timestamp() + interval '50 seconds';
end $$;

-- The access that streams still have: one row for each session that is alive, with the number of its
-- organisation's newest event, so that one statement also finds what a lost notification did not tell.
create function live_sessions(in_organization_ids bigint[], in_session_ids bigint[])
returns table (organization_id bigint, session_id bigint, user_id bigint, permissions text[], last_event_id bigint)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select s.organization_id, s.id, s.user_id, u.permissions, c.last_id
    from unnest(in_organization_ids, in_session_ids) asked (organization_id, id)
    join sessions s on s.organization_id = asked.organization_id and s.id = asked.id
    join users u on u.organization_id = s.organization_id and u.id = s.user_id
    join organizations o on o.id = s.organization_id
    join event_counters c on c.organization_id = s.organization_id
    where s.revoked_at is null and s.expires_at > now() and u.is_active and o.is_active;
end;

revoke all on function announce_streams(uuid, bigint[], integer[]), live_sessions(bigint[], bigint[]) from public;
grant execute on function announce_streams(uuid, bigint[], integer[]), live_sessions(bigint[], bigint[]) to reos_app;
