-- Subjects and contents to begin campaigns with.
set local lock_timeout = '5s';

create table campaign_templates (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    name text not null check (char_length(name) between 1 and 200),
    description text,
    campaign_type text not null check (campaign_type in ('email', 'sms', 'direct_mail', 'social_media')),
    subject text check (char_length(subject) between 1 and 500),
    content text not null check (content <> ''),
    is_active boolean not null default true,
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    primary key (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index campaign_templates_by_id on campaign_templates (organization_id, id) where deleted_at is null;

alter table campaign_templates enable row level security, force row level security;
create policy tenant on campaign_templates to reos_app using (organization_id = (select current_organization_id()));
create policy owner on campaign_templates to reos_owner using (true);
grant select, insert, update on campaign_templates to reos_app;

alter table campaigns add template_id bigint;
alter table campaigns add foreign key (organization_id, template_id) references campaign_templates (organization_id, id);
create index campaigns_by_template on campaigns (organization_id, template_id);
create index campaigns_by_creator on campaigns (organization_id, created_by);
