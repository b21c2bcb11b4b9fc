-- Where an organisation wants its events sent. The secrets stand apart, where the app role has no rights at all.
set local lock_timeout = '5s';

create table webhook_endpoints (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    url text not null check (char_length(url) between 1 and 1000),
    event_types text[] not null check (cardinality(event_types) between 1 and 15 and event_types <@ array[
        'property.created', 'property.updated', 'property.deleted',
        'lead.created', 'lead.updated', 'lead.assigned', 'lead.converted', 'lead.deleted',
        'deal.created', 'deal.updated', 'deal.stage_changed', 'deal.deleted',
        'campaign.started', 'campaign.completed', 'campaign.paused']),
    description text,
    is_active boolean not null default true,
    -- Since its last success; null when the last attempt succeeded, or there was none.
    failing_since timestamptz,
    -- Why the service has switched it off: it answered 410, or failed for days.
    disabled_reason text check (disabled_reason in ('gone', 'failing')),
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- It is gone for everybody, and waits for its deliveries to be removed, which may be many.
    deleted_at timestamptz,
    primary key (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id),
    check (not is_active or (disabled_reason is null and deleted_at is null))
);
-- One for each sort key of the list; the default comes first.
create index webhook_endpoints_by_created_at on webhook_endpoints (organization_id, created_at, id)
    where deleted_at is null;
create index webhook_endpoints_by_updated_at on webhook_endpoints (organization_id, updated_at, id)
    where deleted_at is null;
-- What every transaction with an event looks at.
create index webhook_endpoints_active on webhook_endpoints (organization_id, id) where is_active;

alter table webhook_endpoints enable row level security, force row level security;
create policy tenant on webhook_endpoints to reos_app using (organization_id = (select current_organization_id()));
create policy owner on webhook_endpoints to reos_owner using (true);
grant select, insert (organization_id, url, event_types, description, is_active, created_by),
    update (url, event_types, description, is_active, failing_since, disabled_reason, updated_at, deleted_at)
    on webhook_endpoints to reos_app;
