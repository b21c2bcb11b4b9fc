-- What lies in the file storage: pending from before the bytes are written until a row uses them.
set local lock_timeout = '5s';

create table stored_files (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    storage_key text not null,
    content_type text not null,
    size_bytes bigint not null check (size_bytes >= 0),
    is_public boolean not null,
    is_pending boolean not null default true,
    created_at timestamptz not null default now(),
    primary key (organization_id, id)
);
create index stored_files_pending on stored_files (created_at) where is_pending;
alter table stored_files enable row level security, force row level security;
create policy tenant on stored_files to reos_app using (organization_id = (select current_organization_id()));
create policy owner on stored_files to reos_owner using (true);
grant select, insert, update (is_pending), delete on stored_files to reos_app;
