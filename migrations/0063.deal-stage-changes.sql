-- Every stage that a deal was in: who moved it there, when, and how long it had been in the stage before.
set local lock_timeout = '5s';

create table deal_stage_changes (
    organization_id bigint not null,
    id bigint generated always as identity,
    deal_id bigint not null,
    old_stage text, -- null: the deal was created in new_stage
    new_stage text not null,
    changed_by bigint,
    -- Not now(): a transaction that waited for the deal began before the change that it waited for.
    changed_at timestamptz not null default clock_timestamp(),
    duration_seconds bigint check (duration_seconds >= 0), -- in old_stage
    primary key (organization_id, id),
    foreign key (organization_id, deal_id) references deals (organization_id, id) on delete cascade,
    foreign key (organization_id, changed_by) references users (organization_id, id),
    check ((old_stage is null) = (duration_seconds is null))
);
create index deal_stage_changes_by_deal on deal_stage_changes (organization_id, deal_id, id);

alter table deal_stage_changes enable row level security, force row level security;
create policy tenant on deal_stage_changes to reos_app using (organization_id = (select current_organization_id()));
create policy owner on deal_stage_changes to reos_owner using (true);
grant select, insert on deal_stage_changes to reos_app;
