-- Start, end and error of each attempt of an organisation's jobs, which Procrastinate does not keep.
set local lock_timeout = '5s';

create table job_runs (
    organization_id bigint not null references organizations (id),
    id bigint generated always as identity,
    -- Procrastinate's id; no foreign key, because its tables know no tenant.
    job_id bigint not null,
    kind text not null check (char_length(kind) <= 128),
    attempt integer not null check (attempt >= 1),
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    error text check (char_length(error) <= 500),
    primary key (organization_id, id)
);
create index job_runs_by_job on job_runs (organization_id, job_id, id desc);
create index job_runs_by_start on job_runs (started_at);

alter table job_runs enable row level security, force row level security;
create policy tenant on job_runs to reos_app using (organization_id = (select current_organization_id()));
create policy owner on job_runs to reos_owner using (true);
grant select, insert, update (finished_at, error) on job_runs to reos_app;
