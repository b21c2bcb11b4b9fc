-- What people wrote about a property.
set local lock_timeout = '5s';

create table property_notes (
    organization_id bigint not null,
    id bigint generated always as identity,
    property_id bigint not null,
    content text not null check (content <> ''),
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, property_id) references properties (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index property_notes_by_property on property_notes (organization_id, property_id, id);
alter table property_notes enable row level security, force row level security;
create policy tenant on property_notes to reos_app using (organization_id = (select current_organization_id()));
create policy owner on property_notes to reos_owner using (true);
grant select, insert on property_notes to reos_app;
