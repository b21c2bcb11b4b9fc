-- The money of a deal. An amount may be negative: a refund, a correction.
set local lock_timeout = '5s';

create table transactions (
    organization_id bigint not null,
    id bigint generated always as identity,
    deal_id bigint not null,
    transaction_type text not null check (transaction_type in ('purchase', 'sale', 'lease', 'commission', 'expense',
        'income', 'deposit')),
    amount numeric(12, 2) not null check (amount <> 'NaN'),
    description text,
    transaction_date date not null,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_by bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    amount_cents bigint not null generated always as ((amount * 100)::bigint) stored,
    primary key (organization_id, id),
    foreign key (organization_id, deal_id) references deals (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
-- One for each sort key of a deal's list, the default first, and one for the ranges of reports.
create index transactions_by_deal on transactions (organization_id, deal_id, transaction_date, id);
create index transactions_by_created_at on transactions (organization_id, deal_id, created_at, id);
create index transactions_by_amount on transactions (organization_id, deal_id, amount_cents, id);
create index transactions_by_date on transactions (organization_id, transaction_date, id);

alter table transactions enable row level security, force row level security;
create policy tenant on transactions to reos_app using (organization_id = (select current_organization_id()));
create policy owner on transactions to reos_owner using (true);
grant select, insert, update (transaction_type, amount, description, transaction_date, metadata, updated_at), delete
    on transactions to reos_app;
