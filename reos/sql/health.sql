-- name: get_database_state :one
-- A round trip that shows that the role and the search path are right.
select current_user as role, current_setting('server_version_num')::integer as server_version
