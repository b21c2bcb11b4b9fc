-- Who changed what: append-only for the app role.
set local lock_timeout = '5s';

create table audit_logs (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    action text not null check (action in ('create', 'update', 'delete', 'restore', 'login', 'login_failed', 'logout',
        'password_change', 'password_reset', 'denied', 'assign', 'convert', 'send', 'export', 'download', 'retry',
        'rotate')),
    resource_type text not null,
    resource_id bigint,
    changes jsonb not null default '{}',
    user_id bigint,
    ip_address text,
    user_agent text,
    request_id text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (organization_id, id)
);
create index audit_logs_by_creation on audit_logs (organization_id, created_at desc, id desc);
create index audit_logs_by_resource on audit_logs (organization_id, resource_type, resource_id, id desc);

alter table audit_logs enable row level security, force row level security;
create policy tenant on audit_logs to reos_app using (organization_id = (select current_organization_id()));
create policy owner on audit_logs to reos_owner using (true);
grant select, insert on audit_logs to reos_app;
