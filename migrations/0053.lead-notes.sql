-- What people wrote about a lead; what matters most is pinned.
set local lock_timeout = '5s';

create table lead_notes (
    organization_id bigint not null,
    id bigint generated always as identity,
    lead_id bigint not null,
    content text not null check (content <> ''),
    is_pinned boolean not null default false,
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, lead_id) references leads (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index lead_notes_by_lead on lead_notes (organization_id, lead_id, is_pinned, id);
create index lead_notes_by_creator on lead_notes (organization_id, created_by);
alter table lead_notes enable row level security, force row level security;
create policy tenant on lead_notes to reos_app using (organization_id = (select current_organization_id()));
create policy owner on lead_notes to reos_owner using (true);
grant select, insert on lead_notes to reos_app;
