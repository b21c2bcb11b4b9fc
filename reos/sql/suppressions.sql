-- name: suppression_columns :fragment
-- What answers give.
s.id, s.organization_id, s.email, s.phone, s.reason, s.created_by, s.created_at

-- name: create_suppression :one
-- By a person; an address that is there already breaks the key.
insert into suppressions as s (organization_id, email, phone, reason, created_by)
values (current_organization_id(), $1, $2, $3, current_user_id())
returning {suppression_columns}

-- name: delete_suppression :one
-- For good: the address may be written to again.
delete from suppressions s where s.id = $1 returning {suppression_columns}
