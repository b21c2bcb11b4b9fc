-- name: create_stored_file :one
-- Pending until a row uses it, so that an upload which never became one is swept.
insert into stored_files (organization_id, storage_key, content_type, size_bytes, is_public)
values (current_organization_id(), $1, $2, $3, $4) returning id, storage_key

-- name: use_stored_files :exec
-- In the transaction of the row that uses them.
update stored_files set is_pending = false where id = any($1::bigint[])

-- name: get_stored_file :one
-- What downloads serve: a file that a row uses.
select id, storage_key, content_type, size_bytes, is_public from stored_files where id = $1 and not is_pending

-- name: get_public_file :one
-- What an address shows to everybody: the picture of a property that is not deleted.
select f.id, f.storage_key, f.content_type, f.size_bytes from stored_files f
where f.id = $1 and f.is_public and not f.is_pending and not exists (
    select from property_images i join properties p on p.organization_id = i.organization_id and p.id = i.property_id
    where (i.file_id = f.id or i.thumbnail_file_id = f.id) and p.deleted_at is not null)

-- name: abandon_stored_files :exec
-- Their row is gone: the sweep removes the bytes, then the row.
update stored_files set is_pending = true where id = any($1::bigint[])

-- name: delete_stored_files :exec
-- After their bytes are gone.
delete from stored_files where id = any($1::bigint[]) and is_pending

-- name: list_abandoned_files :many
-- Of all organisations, a bounded batch, which ends with the highest id.
select organization_id, file_id, storage_key from list_abandoned_files($1) order by file_id
