-- Documents of a lead: uploads, which are private, or where else they lie.
set local lock_timeout = '5s';

create table lead_documents (
    organization_id bigint not null,
    id bigint generated always as identity,
    lead_id bigint not null,
    title text not null check (char_length(title) between 1 and 200),
    file_path text check (char_length(file_path) between 1 and 1000),
    file_id bigint,
    file_name text check (char_length(file_name) between 1 and 255),
    file_type text check (char_length(file_type) <= 100),
    file_size bigint check (file_size >= 0), -- bytes
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, lead_id) references leads (organization_id, id) on delete cascade,
    foreign key (organization_id, file_id) references stored_files (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id),
    check ((file_path is null) <> (file_id is null)),
    check ((file_id is null) = (file_name is null))
);
create index lead_documents_by_lead on lead_documents (organization_id, lead_id, id);
create index lead_documents_by_file on lead_documents (organization_id, file_id);
create index lead_documents_by_creator on lead_documents (organization_id, created_by);
alter table lead_documents enable row level security, force row level security;
create policy tenant on lead_documents to reos_app using (organization_id = (select current_organization_id()));
create policy owner on lead_documents to reos_owner using (true);
grant select, insert on lead_documents to reos_app;
