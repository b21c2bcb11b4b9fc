-- name: audit_log_columns :fragment
-- An item of the list; there is no other way to read a row.
a.id, a.action, a.resource_type, a.resource_id, a.changes, a.user_id, a.ip_address, a.user_agent, a.request_id,
a.created_at
