-- What happened around a property: showings, inspections, calls.
set local lock_timeout = '5s';

create table property_activities (
    organization_id bigint not null,
    id bigint generated always as identity,
    property_id bigint not null,
    activity_type text not null check (char_length(activity_type) between 1 and 50),
    description text not null check (description <> ''),
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, property_id) references properties (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index property_activities_by_property on property_activities (organization_id, property_id, id);
alter table property_activities enable row level security, force row level security;
create policy tenant on property_activities to reos_app using (organization_id = (select current_organization_id()));
create policy owner on property_activities to reos_owner using (true);
grant select, insert on property_activities to reos_app;
