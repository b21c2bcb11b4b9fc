-- People who may buy, sell or rent: where they came from, how far they are, who looks after them.
set local lock_timeout = '5s';

create table leads (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    first_name text not null check (char_length(first_name) between 1 and 100),
    last_name text not null check (char_length(last_name) between 1 and 100),
    email text check (char_length(email) <= 255),
    phone text check (char_length(phone) <= 20),
    company text check (char_length(company) <= 200),
    source text not null check (source in ('website', 'referral', 'social_media', 'email', 'phone', 'walk_in', 'event',
        'advertisement', 'other')),
    status text not null default 'new' check (status in ('new', 'contacted', 'qualified', 'unqualified', 'nurturing',
        'converted', 'lost')),
    score integer not null default 0 check (score between 0 and 100),
    budget numeric(12, 2) check (budget >= 0 and budget <> 'NaN'),
    timeline text check (char_length(timeline) <= 100),
    notes text,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    assigned_to bigint,
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_contacted_at timestamptz,
    deleted_at timestamptz,
    budget_cents bigint generated always as ((budget * 100)::bigint) stored,
    search_text text not null generated always as (lower(first_name || ' ' || last_name || ' ' || coalesce(email, '')
        || ' ' || coalesce(phone, '') || ' ' || coalesce(company, ''))) stored,
    primary key (organization_id, id),
    foreign key (organization_id, assigned_to) references users (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id)
);

-- One for each sort key of the list; the default comes first.
create index leads_by_created_at on leads (organization_id, created_at, id) where deleted_at is null;
create index leads_by_updated_at on leads (organization_id, updated_at, id) where deleted_at is null;
create index leads_by_score on leads (organization_id, score, id) where deleted_at is null;
create index leads_by_budget on leads (organization_id, budget_cents, id) where deleted_at is null;
create index leads_by_last_contacted_at on leads (organization_id, last_contacted_at, id) where deleted_at is null;
create index leads_by_last_name on leads (organization_id, last_name, id) where deleted_at is null;
create index leads_by_status on leads (organization_id, status, id) where deleted_at is null;
-- For the filter and the foreign keys; deleted leads count for the latter.
create index leads_by_assignee on leads (organization_id, assigned_to, id);
create index leads_by_creator on leads (organization_id, created_by);
create index leads_search on leads using gin (organization_id, search_text gin_trgm_ops) where deleted_at is null;

alter table leads enable row level security, force row level security;
create policy tenant on leads to reos_app using (organization_id = (select current_organization_id()));
create policy owner on leads to reos_owner using (true);
grant select, insert, update on leads to reos_app;
