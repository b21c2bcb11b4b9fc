-- What the sending of a campaign keeps between its jobs, and the pace that all campaigns of an organisation share.
set local lock_timeout = '5s';

alter table campaigns
    -- Which job goes on: every job but that with this number has been overtaken, and ends without doing anything.
    add job_number integer not null default 0,
    add pause_reason text check (char_length(pause_reason) <= 500),
    -- Since it was last started or resumed: how many have been tried to the end, and how many of them failed.
    add tried_since_start integer not null default 0 check (tried_since_start >= 0),
    add failed_since_start integer not null default 0 check (failed_since_start >= 0),
    -- Of a campaign that the service cannot send itself: its recipients and texts.
    add export_file_id bigint,
    add foreign key (organization_id, export_file_id) references stored_files (organization_id, id);
create index campaigns_by_export_file on campaigns (organization_id, export_file_id);

create table sending_paces (
    organization_id bigint primary key references organizations (id),
    next_at timestamptz not null -- when the next message may go out
);
alter table sending_paces enable row level security, force row level security;
create policy tenant on sending_paces to reos_app using (organization_id = (select current_organization_id()));
create policy owner on sending_paces to reos_owner using (true);
grant select, insert, update (next_at) on sending_paces to reos_app;
