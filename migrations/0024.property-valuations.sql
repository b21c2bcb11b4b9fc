-- What a property was said to be worth, by whom and when.
set local lock_timeout = '5s';

create table property_valuations (
    organization_id bigint not null,
    id bigint generated always as identity,
    property_id bigint not null,
    value numeric(12, 2) not null check (value >= 0 and value <> 'NaN'),
    valuation_date date not null,
    source text check (char_length(source) <= 100),
    notes text,
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, property_id) references properties (organization_id, id) on delete cascade,
    foreign key (organization_id, created_by) references users (organization_id, id)
);
create index property_valuations_by_date on property_valuations (organization_id, property_id, valuation_date, id);
alter table property_valuations enable row level security, force row level security;
create policy tenant on property_valuations to reos_app using (organization_id = (select current_organization_id()));
create policy owner on property_valuations to reos_owner using (true);
grant select, insert on property_valuations to reos_app;
