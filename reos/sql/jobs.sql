-- name: defer_job :value
-- In the caller's transaction; the function takes the tenant from there.
select defer_job($1, $2, $3, $4, $5, $6)

-- name: get_job_health :one
-- Three numbers over all organisations, for /health.
select workers, queued, oldest_seconds from job_health()

-- name: get_job_backlog :one
-- The same and more for /metrics, in one round trip.
select h.workers, h.queued, h.oldest_seconds, b.scheduled, b.running, b.running_oldest_seconds, b.failed
from job_health() h, job_backlog() b

-- name: start_job_run :value
-- One row for each attempt. One before it that has no end began when the database went away: its worker never learned
-- that its row was there.
with broken_off as (
    update job_runs set finished_at = clock_timestamp(), error = 'The database was lost when the attempt began.'
    where job_id = $1 and finished_at is null
)
insert into job_runs (organization_id, job_id, kind, attempt)
values (current_organization_id(), $1, $2, $3) returning id

-- name: finish_job_run :value
-- Not over what the rescue wrote, when it took this attempt for dead, nor twice.
update job_runs set finished_at = clock_timestamp(), error = $2 where id = $1 and finished_at is null
returning id

-- name: rescue_stalled_jobs :many
-- As reos_jobs. Tasks and their attempts come as two arrays.
select job_id, task, organization_id, attempts, is_queued from rescue_stalled_jobs($1, $2, $3)

-- name: purge_jobs :value
-- As reos_jobs, a bounded batch.
select purge_jobs($1, $2)

-- name: purge_sessions :value
-- Ended sessions, used and expired tokens, counts of failed log-ins, look-ups never finished.
select purge_sessions()

-- name: take_address_lookup :one
-- Before a tenant is known; organization_id and user_id are null for an unknown address.
select kind, organization_id, user_id, ip_address, user_agent, request_id from take_address_lookup($1)

-- name: finish_address_lookup :exec
-- In the transaction that did what it was for, or after it.
select finish_address_lookup($1)

-- name: get_addressee :one
-- Whom a mail goes to, and what its text names.
select u.email, u.first_name, u.is_active and o.is_active as is_active, u.is_verified, o.name as organization_name,
    coalesce((u.preferences ->> 'email_notifications')::boolean, true) as wants_notifications,
    coalesce((u.preferences ->> 'daily_report')::boolean, false) and 'analytics:read' = any (u.permissions)
    as gets_report
from users u join organizations o on o.id = u.organization_id where u.id = $1

-- name: get_former_addresses :many
-- Of the audit log, because a job is given nothing but ids. Also those of the hour before the last change: who changes
-- an address twice must not keep its first owner from hearing of it.
with changes as (
    select a.changes -> 'email' ->> 0 as email, a.created_at from audit_logs a
    where a.resource_id = $1 and a.resource_type = 'user' and a.action = 'update' and a.changes ? 'email'
)
select distinct email from changes where created_at >= (select max(created_at) from changes) - interval '1 hour'

-- name: list_jobs :many
-- A page with, in each row, the count of all (null unless it is wanted).
select j.id, j.kind, j.state, j.attempts, j.scheduled_at, j.started_at, j.finished_at, j.last_error,
    case when $9 then count_jobs($1, $2, $3) end as total
from show_jobs(array(select find_jobs($1, $2, $3, $4, $5, $6, $7, $8))) j
order by case when $6 then -j.id else j.id end

-- name: count_jobs :value
-- For a page without a row that could carry the count.
select count_jobs($1, $2, $3)

-- name: get_job :one
-- The single GET; the function shows no job of another organisation.
select id, kind, state, attempts, scheduled_at, started_at, finished_at, last_error from show_jobs(array[$1::bigint])

-- name: retry_job :value
-- False when it is no failed job of the organisation.
select retry_job($1)
