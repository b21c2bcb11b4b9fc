-- name: purge_soft_deleted :value
-- Of all organisations, a bounded batch; days.
select purge_soft_deleted($1)

-- name: list_old_audit_logs :many
-- Whose audit rows are older than so many days.
select list_old_audit_logs($1) as organization_id

-- name: read_old_audit_logs :many
-- A batch of the tenant's, oldest first. The file that they go to is named after the first and the last, so an archive
-- that was interrupted is written again in the same place.
select a.id, a.organization_id, a.action, a.resource_type, a.resource_id, a.changes, a.user_id, a.ip_address,
    a.user_agent, a.request_id, a.created_at
from audit_logs a where a.created_at < now() - make_interval(days => $1) order by a.id limit $2

-- name: purge_audit_logs :value
-- Of the tenant: those of a batch that is archived.
select purge_audit_logs($1, $2, $3)
