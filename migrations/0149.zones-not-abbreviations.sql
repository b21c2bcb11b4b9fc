-- CET, MET, EET and WET are time zones with a summer time, but to Postgres abbreviations first, of a fixed offset: days
-- and mornings of an organisation there began an hour late in summer. Under the name that each is an alias of, it is
-- the zone.
set local lock_timeout = '5s';

create function named_time_zone(in_name text) returns text
language sql immutable strict parallel safe
return case in_name
    when 'CET' then 'Europe/Brussels'
    when 'MET' then 'Europe/Brussels'
    when 'EET' then 'Europe/Athens'
    when 'WET' then 'Europe/Lisbon'
    else in_name
end;
revoke all on function named_time_zone(text) from public;
grant execute on function named_time_zone(text) to reos_app;

create or replace function list_due_reports(in_now timestamptz, in_limit bigint)
returns table (organization_id bigint, user_id bigint, day date)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select u.organization_id, u.id, (in_now at time zone zone.name)::date
    from users u
    join organizations o on o.id = u.organization_id
    cross join lateral (
        select case when knows_time_zone(given.name) then given.name else 'UTC' end as name
        from (select named_time_zone(coalesce(o.settings ->> 'timezone', 'UTC')) as name) given
        offset 0 -- Asked once a user, and before the zone is used.
    ) zone
    where u.is_active and o.is_active and (u.preferences ->> 'daily_report')::boolean
        and 'analytics:read' = any (u.permissions)
        and extract(hour from in_now at time zone zone.name) between 7 and 11
        and not exists (select from daily_reports r where r.organization_id = u.organization_id
            and r.user_id = u.id and r.day = (in_now at time zone zone.name)::date)
    order by u.organization_id, u.id limit in_limit;
end;
