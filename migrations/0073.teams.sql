-- Teams of users, and who leads them.
set local lock_timeout = '5s';

create table teams (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    name text not null check (char_length(name) between 1 and 100),
    description text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (organization_id, id)
);
-- One for each sort key of the list; the default comes first.
create index teams_by_created_at on teams (organization_id, created_at, id);
create index teams_by_updated_at on teams (organization_id, updated_at, id);
create index teams_by_name on teams (organization_id, name, id);

create table team_members (
    organization_id bigint not null,
    team_id bigint not null,
    user_id bigint not null,
    role text not null default 'member' check (role in ('leader', 'member')),
    created_at timestamptz not null default now(),
    primary key (organization_id, team_id, user_id),
    foreign key (organization_id, team_id) references teams (organization_id, id) on delete cascade,
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade
);
create index team_members_by_user on team_members (organization_id, user_id);

alter table teams enable row level security, force row level security;
alter table team_members enable row level security, force row level security;
create policy tenant on teams to reos_app using (organization_id = (select current_organization_id()));
create policy tenant on team_members to reos_app using (organization_id = (select current_organization_id()));
create policy owner on teams to reos_owner using (true);
create policy owner on team_members to reos_owner using (true);

grant select, insert (organization_id, name, description), update (name, description, updated_at), delete
    on teams to reos_app;
grant select, insert (organization_id, team_id, user_id, role), delete on team_members to reos_app;
