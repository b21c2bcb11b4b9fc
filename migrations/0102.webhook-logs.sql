-- Deliveries: one row for each event and endpoint subscribed to it at that moment. Its id is the `webhook-id`, the same
-- for every attempt.
set local lock_timeout = '5s';

create table webhook_logs (
    organization_id bigint not null,
    id bigint generated always as identity,
    webhook_endpoint_id bigint not null,
    event_type text not null,
    -- A copy, because events are removed by themselves.
    data jsonb not null,
    status text not null default 'pending' check (status in ('pending', 'sending', 'delivered', 'failed')),
    -- Counted before an attempt, so it is also the number that tells one attempt from the next.
    attempts integer not null default 0 check (attempts >= 0),
    -- While it is sent: when the attempt counts as lost, because its worker died.
    next_attempt_at timestamptz default clock_timestamp(),
    last_attempt_at timestamptz,
    response_status integer,
    response_body text check (octet_length(response_body) <= 1024),
    response_time_ms integer,
    error text check (char_length(error) <= 500),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (organization_id, id),
    foreign key (organization_id, webhook_endpoint_id) references webhook_endpoints (organization_id, id),
    check ((next_attempt_at is null) = (status in ('delivered', 'failed')))
);
create index webhook_logs_by_created_at on webhook_logs (organization_id, webhook_endpoint_id, created_at, id);
create index webhook_logs_due on webhook_logs (organization_id, webhook_endpoint_id, next_attempt_at)
    where next_attempt_at is not null;

alter table webhook_logs enable row level security, force row level security;
create policy tenant on webhook_logs to reos_app using (organization_id = (select current_organization_id()));
create policy owner on webhook_logs to reos_owner using (true);
grant select, update (status, attempts, next_attempt_at, last_attempt_at, response_status, response_body,
    response_time_ms, error, updated_at) on webhook_logs to reos_app;
