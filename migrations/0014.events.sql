-- Events, numbered for each organisation in the order of their commits: a transaction takes the counter's
-- row as the last thing before it commits, so a higher number is never seen before a lower one.
set local lock_timeout = '5s';

create table event_counters (
    organization_id bigint primary key references organizations (id),
    last_id bigint not null default 0,
    -- Until when some process has said that it listens for this organisation: nobody is notified for nothing.
    listened_until timestamptz not null default '-infinity'
);

create table events (
    organization_id bigint not null references organizations (id),
    id bigint not null,
    type text not null,
    resource_type text not null,
    resource_id bigint,
    data jsonb not null,
    actor_id bigint,
    created_at timestamptz not null default clock_timestamp(),
    primary key (organization_id, id)
);
create index events_by_creation on events (created_at);

alter table event_counters enable row level security, force row level security;
alter table events enable row level security, force row level security;
create policy tenant on event_counters to reos_app using (organization_id = (select current_organization_id()));
create policy tenant on events to reos_app using (organization_id = (select current_organization_id()));
create policy owner on event_counters to reos_owner using (true);
create policy owner on events to reos_owner using (true);
grant select, update (last_id) on event_counters to reos_app;
grant select, insert on events to reos_app;
