-- name: permission_columns :fragment
-- The same for all organisations.
p.id, p.name, p.description, p.resource, p.action, p.created_at

-- name: list_permissions :many
-- In the order in which they were made: resource by resource.
select {permission_columns}, count(*) over () as total from permissions p order by p.id limit $1 offset $2

-- name: get_permission :one
-- The single GET.
select {permission_columns} from permissions p where p.id = $1

-- name: list_existing_permissions :many
-- Which of these ids lead somewhere.
select id from permissions where id = any ($1)

-- name: list_lacking :value
-- Which of the permissions of these roles, of these ids, and of the user $3 the caller does not have.
select array(
    select wanted.name from (
        select p.name from role_permissions rp join permissions p on p.id = rp.permission_id where rp.role_id = any ($1)
        union
        select p.name from permissions p where p.id = any ($2)
        union
        select unnest(u.permissions) from users u where u.id = $3
    ) wanted
    where wanted.name <> all (array(select unnest(u.permissions) from users u where u.id = current_user_id()))
    order by wanted.name
)

-- name: has_permission :value
-- For what only a part of a request needs; what all of it needs is checked where its transaction begins.
select $1 = any (u.permissions) from users u where u.id = current_user_id()
