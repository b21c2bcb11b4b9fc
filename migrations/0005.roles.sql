-- Roles of an organisation, who has them, and what they allow.
set local lock_timeout = '5s';

create table roles (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    name text not null check (char_length(name) between 1 and 100),
    description text,
    is_system boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (organization_id, id)
);
create unique index roles_name_key on roles (organization_id, lower(name));

create table role_permissions (
    organization_id bigint not null,
    role_id bigint not null,
    permission_id bigint not null references permissions (id),
    primary key (organization_id, role_id, permission_id),
    foreign key (organization_id, role_id) references roles (organization_id, id) on delete cascade
);

create table user_roles (
    organization_id bigint not null,
    user_id bigint not null,
    role_id bigint not null,
    primary key (organization_id, user_id, role_id),
    foreign key (organization_id, user_id) references users (organization_id, id) on delete cascade,
    foreign key (organization_id, role_id) references roles (organization_id, id) on delete cascade
);
create index user_roles_by_role on user_roles (organization_id, role_id);

alter table roles enable row level security, force row level security;
alter table role_permissions enable row level security, force row level security;
alter table user_roles enable row level security, force row level security;
create policy tenant on roles to reos_app using (organization_id = (select current_organization_id()));
create policy tenant on role_permissions to reos_app using (organization_id = (select current_organization_id()));
create policy tenant on user_roles to reos_app using (organization_id = (select current_organization_id()));
create policy owner on roles to reos_owner using (true);
create policy owner on role_permissions to reos_owner using (true);
create policy owner on user_roles to reos_owner using (true);

grant select, insert (organization_id, name, description), update (name, description, updated_at), delete
    on roles to reos_app;
grant select, insert, delete on role_permissions, user_roles to reos_app;
