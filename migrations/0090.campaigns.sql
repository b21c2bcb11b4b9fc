-- Campaigns: what is sent to many leads at once, and what became of it in numbers.
set local lock_timeout = '5s';

create table campaigns (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    name text not null check (char_length(name) between 1 and 200),
    description text,
    campaign_type text not null check (campaign_type in ('email', 'sms', 'direct_mail', 'social_media')),
    status text not null default 'draft' check (status in ('draft', 'scheduled', 'in_progress', 'completed', 'paused',
        'cancelled')),
    subject text check (char_length(subject) between 1 and 500),
    content text not null check (content <> ''),
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    scheduled_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    total_recipients integer not null default 0 check (total_recipients >= 0),
    sent_count integer not null default 0 check (sent_count >= 0), -- what the mail server took, bounced ones too
    delivered_count integer not null default 0 check (delivered_count >= 0), -- those less the bounced
    opened_count integer not null default 0 check (opened_count >= 0),
    clicked_count integer not null default 0 check (clicked_count >= 0),
    bounced_count integer not null default 0 check (bounced_count >= 0),
    unsubscribed_count integer not null default 0 check (unsubscribed_count >= 0),
    failed_count integer not null default 0 check (failed_count >= 0),
    suppressed_count integer not null default 0 check (suppressed_count >= 0),
    unknown_count integer not null default 0 check (unknown_count >= 0),
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    primary key (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id)
);
-- One for each sort key of the list; the default comes first.
create index campaigns_by_created_at on campaigns (organization_id, created_at, id) where deleted_at is null;
create index campaigns_by_updated_at on campaigns (organization_id, updated_at, id) where deleted_at is null;
create index campaigns_by_scheduled_at on campaigns (organization_id, scheduled_at, id) where deleted_at is null;
create index campaigns_by_name on campaigns (organization_id, name, id) where deleted_at is null;
create index campaigns_by_status on campaigns (organization_id, status, id) where deleted_at is null;

alter table campaigns enable row level security, force row level security;
create policy tenant on campaigns to reos_app using (organization_id = (select current_organization_id()));
create policy owner on campaigns to reos_owner using (true);
grant select, insert, update on campaigns to reos_app;
