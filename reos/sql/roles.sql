-- name: role_columns :fragment
-- A role as the list has it.
r.id, r.organization_id, r.name, r.description, r.is_system, r.created_at, r.updated_at

-- name: list_roles :many
-- Those that every organisation has come first, in the order of their power.
select {role_columns}, count(*) over () as total from roles r
order by r.is_system desc, case when r.is_system then r.id end, lower(r.name), r.id limit $1 offset $2

-- name: get_role :one
-- Without its permissions, which hold times and so come as rows, not as JSON.
select {role_columns} from roles r where r.id = $1

-- name: list_role_permissions :many
-- The full objects of the single GET.
select p.id, p.name, p.description, p.resource, p.action, p.created_at
from role_permissions rp join permissions p on p.id = rp.permission_id
where rp.role_id = $1 order by p.id

-- name: list_role_users :many
-- Who loses what a role gives when it goes.
select user_id from user_roles where role_id = $1 order by user_id

-- name: lock_role :exec
-- `for update`, as the trigger on role_permissions takes it: it waits for grants of the role that are under way.
select 1 from roles where id = $1 for update

-- name: lock_roles_for_grant :many
-- What is there of these roles, kept from being deleted or given other permissions until the grant has committed.
select id from roles where id = any ($1) order by id for key share

-- name: lock_admin_role :value
-- Taken before a user is, by whatever may cost an Admin the role or the access: of two requests that would each take
-- one of the last two, the second then sees what the first has done.
select id from roles where is_system and name = 'Admin' for no key update

-- name: has_other_admin :value
-- Whether anybody but this user has the role $1 and may log in.
select exists (
    select from user_roles ur join users u on u.organization_id = ur.organization_id and u.id = ur.user_id
    where ur.role_id = $1 and ur.user_id <> $2 and u.is_active
)

-- name: insert_role :value
-- Never a system role: those are made with the organisation.
insert into roles (organization_id, name, description) values (current_organization_id(), $1, $2) returning id

-- name: update_role :exec
-- The patch is merged into the row; without one the row is still marked as changed.
update roles r set (name, description, updated_at)
    = (select p.name, p.description, clock_timestamp() from jsonb_populate_record(r, $2::jsonb) p)
where r.id = $1

-- name: touch_role_users :exec
-- The users show the role by its name, so that they change with it. They are locked in the order of their keys, as the
-- triggers do, so that two changes of roles cannot deadlock.
with held as (
    select u.organization_id, u.id
    from user_roles ur join users u on u.organization_id = ur.organization_id and u.id = ur.user_id
    where ur.role_id = $1 order by u.id for no key update of u
)
update users u set updated_at = clock_timestamp() from held h
where u.organization_id = h.organization_id and u.id = h.id

-- name: set_role_permissions :exec
-- Exactly these; triggers bring the role's users up to date.
with taken as (
    delete from role_permissions where role_id = $1 and permission_id <> all ($2)
)
insert into role_permissions (organization_id, role_id, permission_id)
select current_organization_id(), $1, permission_id from unnest($2::bigint[]) permission_id
on conflict do nothing

-- name: delete_role :exec
-- For good; its users lose it with it.
delete from roles where id = $1
