-- Who has got the morning report of which day, so that nobody gets one twice.
set local lock_timeout = '5s';

create table daily_reports (
    organization_id bigint not null,
    user_id bigint not null,
    day date not null, -- in the organisation's time zone
    primary key (organization_id, user_id, day),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
alter table daily_reports enable row level security, force row level security;
create policy tenant on daily_reports to reos_app using (organization_id = (select current_organization_id()));
create policy owner on daily_reports to reos_owner using (true);
grant select, insert, delete on daily_reports to reos_app;

-- Who wants a report, may read what is in it, and has not got today's, where it is between 7:00 and noon: what was
-- missed all morning is missed. Of all organisations, ids alone.
create function list_due_reports(in_now timestamptz, in_limit bigint)
returns table (organization_id bigint, user_id bigint, day date)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select u.organization_id, u.id, (in_now at time zone zone.name)::date
    from users u
    join organizations o on o.id = u.organization_id
    cross join lateral (select coalesce(o.settings ->> 'timezone', 'UTC') as name) zone
    where u.is_active and o.is_active and (u.preferences ->> 'daily_report')::boolean
        and 'analytics:read' = any (u.permissions)
        and extract(hour from in_now at time zone zone.name) between 7 and 11
        and not exists (select from daily_reports r where r.organization_id = u.organization_id
            and r.user_id = u.id and r.day = (in_now at time zone zone.name)::date)
    order by u.organization_id, u.id limit in_limit;
end;
revoke all on function list_due_reports(timestamptz, bigint) from public;
grant execute on function list_due_reports(timestamptz, bigint) to reos_app;
