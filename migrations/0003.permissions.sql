-- What a role may hold: global and read-only, the same for all organisations.
set local lock_timeout = '5s';

create table permissions (
    id bigint generated always as identity primary key,
    name text not null unique generated always as (resource || ':' || action) stored,
    description text not null,
    resource text not null,
    action text not null,
    created_at timestamptz not null default now()
);

insert into permissions (resource, action, description)
select resource, action, initcap(action) || ' ' || plural
from (values
    ('property', 'properties'), ('lead', 'leads'), ('campaign', 'campaigns'), ('deal', 'deals'),
    ('portfolio', 'portfolios'), ('user', 'users'), ('role', 'roles'), ('team', 'teams'), ('webhook', 'webhooks')
) resources (resource, plural),
(values ('create'), ('read'), ('update'), ('delete')) actions (action);

insert into permissions (resource, action, description) values
    ('lead', 'assign', 'Assign leads to users'),
    ('campaign', 'send', 'Send, pause, resume and cancel campaigns'),
    ('organization', 'read', 'Read the organisation'),
    ('organization', 'update', 'Update the organisation'),
    ('analytics', 'read', 'Read analytics'),
    ('audit', 'read', 'Read the audit log'),
    ('report', 'export', 'Export reports'),
    ('job', 'read', 'Read background jobs'),
    ('job', 'update', 'Retry background jobs');

alter table permissions enable row level security, force row level security;
create policy everyone on permissions for select to reos_app using (true);
create policy owner on permissions to reos_owner using (true);
grant select on permissions to reos_app;
