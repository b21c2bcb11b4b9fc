-- Addresses that an organisation never writes to again: who unsubscribed, complained or cannot be reached, and whom
-- somebody put there.
set local lock_timeout = '5s';

-- What makes two addresses the same: letters of either case, and the digits of a number. Null for a number without any.
create function address_key(in_email text, in_phone text) returns text
language sql immutable parallel safe
return coalesce(lower(in_email), nullif(regexp_replace(in_phone, '[^0-9]', '', 'g'), ''));
revoke all on function address_key(text, text) from public;
grant execute on function address_key(text, text) to reos_app;

create table suppressions (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    email text check (char_length(email) <= 255),
    phone text check (char_length(phone) <= 20),
    address_key text not null generated always as (address_key(email, phone)) stored,
    reason text check (char_length(reason) <= 200),
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    constraint suppressions_address_key unique (organization_id, address_key),
    foreign key (organization_id, created_by) references users (organization_id, id),
    check ((email is null) <> (phone is null))
);
create index suppressions_by_created_at on suppressions (organization_id, created_at, id);
create index suppressions_by_creator on suppressions (organization_id, created_by);

alter table suppressions enable row level security, force row level security;
create policy tenant on suppressions to reos_app using (organization_id = (select current_organization_id()));
create policy owner on suppressions to reos_owner using (true);
grant select, insert, delete on suppressions to reos_app;
