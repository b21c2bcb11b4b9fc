-- What was or will be done about a lead: calls, mails, meetings.
set local lock_timeout = '5s';

create table lead_activities (
    organization_id bigint not null,
    id bigint generated always as identity,
    lead_id bigint not null,
    activity_type text not null check (activity_type in ('call', 'email', 'meeting', 'sms', 'note')),
    subject text check (char_length(subject) <= 200),
    description text not null check (description <> ''),
    outcome text check (char_length(outcome) <= 100),
    scheduled_at timestamptz,
    completed_at timestamptz,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, lead_id) references leads (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index lead_activities_by_lead on lead_activities (organization_id, lead_id, id);
create index lead_activities_by_creator on lead_activities (organization_id, created_by);
alter table lead_activities enable row level security, force row level security;
create policy tenant on lead_activities to reos_app using (organization_id = (select current_organization_id()));
create policy owner on lead_activities to reos_owner using (true);
grant select, insert on lead_activities to reos_app;
