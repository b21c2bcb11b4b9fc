-- name: create_stored_file :one
-- Pending until a row uses it, so that an upload which never became one is swept.
insert into stored_files (organization_id, storage_key, content_type, size_bytes, is_public)
values (current_organization_id(), $1, $2, $3, $4) returning id, storage_key

-- name: use_stored_files :exec
-- In the transaction of the row that uses them.
update stored_files set is_pending = false where id = any($1::bigint[])

-- name: get_stored_file :one
-- What /files and downloads serve: a file that a row uses.
select id, storage_key, content_type, size_bytes, is_public from stored_files where id = $1 and not is_pending

-- name: abandon_stored_files :exec
-- Their row is gone: the sweep removes the bytes, then the row.
update stored_files set is_pending = true where id = any($1::bigint[])

-- name: delete_stored_file :exec
-- After its bytes are gone.
delete from stored_files where id = $1 and is_pending

-- name: list_abandoned_files :many
-- Of all organisations, a bounded batch.
select organization_id, file_id, storage_key from list_abandoned_files()
