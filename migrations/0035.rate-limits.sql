-- Requests counted for each client in windows of a minute, an hour and a day.
set local lock_timeout = '5s';

-- Unlogged: counting must be cheap, and after a crash of the database every client starts afresh. Only the key is
-- indexed and pages are left half empty, so that a count is a heap-only update.
create unlogged table rate_limits (
    key bytea primary key,
    started_at timestamptz[] not null, -- minute, hour, day: a window starts with the first request in it
    used bigint[] not null, -- requests in each, and what a process holds in reserve
    taker bigint not null, -- the process that counted last
    held_until timestamptz not null default '-infinity', -- when its reserve runs out
    shared_until timestamptz not null default '-infinity', -- several processes count: no reserves until then
    used_at timestamptz not null
) with (fillfactor = 50);
alter table rate_limits enable row level security, force row level security;
create policy owner on rate_limits to reos_owner using (true);

-- Counts up to in_wanted requests, as many as every window has left, and with them a reserve of at most 1 % of
-- what is left then (so none below 100), which the process may use up within in_hold (null: none).
--
-- The clock is read after the row is locked: whoever waited for the lock counts in the window of now. A refused
-- request is not counted. While a process uses up a reserve without asking, nobody else may count, or what it
-- tells its clients to be left would be too much; so another process is told to come back in held_seconds, and
-- no reserve is handed out for a while then. in_returned is what the process did not use of its last reserve, which
-- is taken off only where the window is still the same.
create function take_rate_limit(in_key bytea, in_taker bigint, in_wanted bigint, in_limits bigint[], in_hold interval,
    in_returned bigint, in_returned_starts timestamptz[],
    out held_seconds double precision, out granted bigint, out reserved bigint,
    out started_at timestamptz[], out used bigint[], out counted_at timestamptz)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    lengths constant interval[] := array['1 minute', '1 hour', '1 day'];
    entry rate_limits;
    remaining bigint;
begin
    loop
        select * into entry from rate_limits r where r.key = in_key for update;
        exit when found;
        insert into rate_limits (key, started_at, used, taker, used_at)
        values (in_key, array_fill('-infinity'::timestamptz, array[3]), array[0, 0, 0], in_taker, clock_timestamp())
        on conflict (key) do nothing;
    end loop;
    counted_at := clock_timestamp();
    if entry.taker <> in_taker then
        entry.shared_until := counted_at + interval '5 seconds';
        if entry.held_until > counted_at then
            update rate_limits r set shared_until = entry.shared_until where r.key = in_key;
            held_seconds := extract(epoch from entry.held_until - counted_at);
            return;
        end if;
    end if;
    for i in 1..3 loop
        -- A start in the future is left from before the clock was set back.
        if entry.started_at[i] <= counted_at - lengths[i] or entry.started_at[i] > counted_at + interval '1 second' then
            entry.started_at[i] := counted_at;
            entry.used[i] := 0;
        elsif entry.started_at[i] = in_returned_starts[i] then
            entry.used[i] := greatest(entry.used[i] - in_returned, 0);
        end if;
        if in_limits[i] > 0 then
            remaining := least(remaining, greatest(in_limits[i] - entry.used[i], 0));
        end if;
    end loop;
    granted := least(in_wanted, remaining);
    reserved := case when entry.shared_until <= counted_at and in_hold is not null then (remaining - granted) / 100 else 0 end;
    for i in 1..3 loop
        entry.used[i] := entry.used[i] + granted + reserved;
    end loop;
    if granted > 0 or in_returned > 0 then
        update rate_limits r set started_at = entry.started_at, used = entry.used, taker = in_taker,
            held_until = case when reserved > 0 then counted_at + in_hold else '-infinity' end,
            shared_until = entry.shared_until, used_at = counted_at
        where r.key = in_key;
    end if;
    started_at := entry.started_at;
    used := entry.used;
end $$;

-- Takes reserves that were not used off their windows, where these are still the same. in_starts holds three times
-- for each key. The keys come in order, so that two processes never wait for each other.
create function give_back_rate_limits(in_keys bytea[], in_counts bigint[], in_starts timestamptz[]) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    starts timestamptz[];
begin
    for i in 1..cardinality(in_keys) loop
        starts := in_starts[3 * i - 2 : 3 * i];
        update rate_limits r set used = array[
            case when r.started_at[1] = starts[1] then greatest(r.used[1] - in_counts[i], 0) else r.used[1] end,
            case when r.started_at[2] = starts[2] then greatest(r.used[2] - in_counts[i], 0) else r.used[2] end,
            case when r.started_at[3] = starts[3] then greatest(r.used[3] - in_counts[i], 0) else r.used[3] end]
        where r.key = in_keys[i];
    end loop;
end $$;

-- After a day without a request every window has run out.
create function purge_rate_limits() returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with purged as (
        delete from rate_limits where used_at < now() - interval '1 day' returning 1
    )
    select count(*) from purged;
end;

revoke all on function
    take_rate_limit(bytea, bigint, bigint, bigint[], interval, bigint, timestamptz[]),
    give_back_rate_limits(bytea[], bigint[], timestamptz[]), purge_rate_limits() from public;
grant execute on function
    take_rate_limit(bytea, bigint, bigint, bigint[], interval, bigint, timestamptz[]),
    give_back_rate_limits(bytea[], bigint[], timestamptz[]), purge_rate_limits() to reos_app;
