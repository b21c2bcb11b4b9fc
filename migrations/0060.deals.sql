-- Deals: the way of a property to a buyer or tenant, stage by stage. As with properties, enumerations are checked
-- text and sort keys are integers, text, days and times, whose comparison is leakproof.
set local lock_timeout = '5s';

create table deals (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    property_id bigint not null,
    lead_id bigint,
    deal_type text not null check (deal_type in ('buy', 'sell', 'lease', 'wholesale', 'flip', 'rental')),
    stage text not null default 'lead' check (stage in ('lead', 'qualified', 'proposal', 'negotiation', 'contract',
        'inspection', 'financing', 'closing', 'closed_won', 'closed_lost')),
    value numeric(12, 2) not null check (value >= 0 and value <> 'NaN'),
    commission_rate numeric(5, 2) check (commission_rate between 0 and 100), -- percent
    probability integer not null default 50 check (probability between 0 and 100), -- percent
    expected_close_date date,
    assigned_to bigint,
    notes text,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    closed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    value_cents bigint not null generated always as ((value * 100)::bigint) stored,
    primary key (organization_id, id),
    foreign key (organization_id, property_id) references properties (organization_id, id),
    foreign key (organization_id, lead_id) references leads (organization_id, id),
    foreign key (organization_id, assigned_to) references users (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id),
    check ((closed_at is not null) = (stage in ('closed_won', 'closed_lost')))
);

-- One for each sort key of the list; the default comes first.
create index deals_by_created_at on deals (organization_id, created_at, id) where deleted_at is null;
create index deals_by_updated_at on deals (organization_id, updated_at, id) where deleted_at is null;
create index deals_by_value on deals (organization_id, value_cents, id) where deleted_at is null;
create index deals_by_probability on deals (organization_id, probability, id) where deleted_at is null;
create index deals_by_expected_close_date on deals (organization_id, expected_close_date, id) where deleted_at is null;
create index deals_by_closed_at on deals (organization_id, closed_at, id) where deleted_at is null;
create index deals_by_stage on deals (organization_id, stage, id) where deleted_at is null;
-- For filters and foreign keys; deleted deals count for the latter.
create index deals_by_property on deals (organization_id, property_id, id);
create index deals_by_lead on deals (organization_id, lead_id, id);
create index deals_by_assignee on deals (organization_id, assigned_to, id);

alter table deals enable row level security, force row level security;
create policy tenant on deals to reos_app using (organization_id = (select current_organization_id()));
create policy owner on deals to reos_owner using (true);
grant select, insert, update on deals to reos_app;
