-- name: get_login_state :one
-- Who a DSN leads to, what that log-in could do to row security, and whether it may work as the service does.
select session_user::text as login, rolsuper as superuser, rolbypassrls as bypasses_rls,
    coalesce(pg_has_role(session_user, to_regrole('reos_app')::oid, 'member'), false) as may_be_app,
    coalesce(pg_has_role(session_user, to_regrole('reos_owner')::oid, 'member'), false) as may_be_owner
from pg_roles where rolname = session_user

-- name: get_clock :one
-- What the database takes for the present moment, in seconds since 1970.
select extract(epoch from clock_timestamp())::float8 as seconds

-- name: get_connection_limit :one
-- How many connections there may be of log-ins that are not superuser.
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as room

-- name: become_app :exec
-- For the rest of the transaction: a pooler may stand in between.
set local role reos_app

-- name: become_jobs :exec
-- As become_app, for what only the queue's own role may read.
set local role reos_jobs

-- name: get_queue_state :one
-- As /health sees it.
select workers, queued, oldest_seconds from job_health()

-- name: get_last_heartbeat :one
-- Of whichever worker showed itself last; null where none is known.
select extract(epoch from now() - max(w.last_heartbeat))::float8 as seconds_ago
from procrastinate.procrastinate_workers w

-- name: listen :exec
-- A channel of the doctor's own.
listen reos_doctor

-- name: notify :exec
-- $1 tells this doctor's notification from another's.
select pg_notify('reos_doctor', $1)

-- name: get_replica_state :one
-- A replica that has replayed all it received does not lag, however long ago the last transaction was.
select pg_is_in_recovery() as is_replica,
    case when pg_last_wal_receive_lsn() is distinct from pg_last_wal_replay_lsn()
        then coalesce(extract(epoch from now() - pg_last_xact_replay_timestamp()), 0) else 0 end::float8 as lag_seconds
