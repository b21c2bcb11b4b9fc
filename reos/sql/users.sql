-- name: user_columns :fragment
-- A user as every answer gives it. A lock runs out by itself.
u.id, u.organization_id, u.email, u.first_name, u.last_name, u.phone, u.is_active, u.is_verified,
coalesce(u.locked_until > now(), false) as is_locked, u.is_superuser, u.last_login, u.created_at, u.updated_at

-- name: role_column :fragment
-- The roles by name, in the list too: as JSON, so that it takes no query of its own.
coalesce((
    select jsonb_agg(jsonb_build_object('id', r.id, 'name', r.name) order by r.id)
    from user_roles ur join roles r on r.organization_id = ur.organization_id and r.id = ur.role_id
    where ur.organization_id = u.organization_id and ur.user_id = u.id
), '[]') as roles

-- name: get_user :one
-- The single GET.
select {user_columns}, {role_column} from users u where u.id = $1

-- name: lock_user :exec
-- Read after it, in a statement of its own: the roles stand in another table, and a statement that has waited for a
-- row still shows other tables as they were when it began.
select 1 from users where id = $1 for no key update

-- name: insert_user :value
-- Whoever makes a user vouches for the address.
insert into users (organization_id, email, first_name, last_name, phone, is_verified)
values (current_organization_id(), $1, $2, $3, $4, true)
returning id

-- name: create_login :exec
-- The address, unique over all organisations, and the password hash: tables that the app role reaches by function.
select create_login($1, $2, $3)

-- name: change_login :exec
-- Through a function too; it breaks the key of a taken address.
select change_login($1, $2)

-- name: update_user :exec
-- The patch is merged into the row; without one the row is still marked as changed, for the sake of If-Match.
update users u set (email, first_name, last_name, phone, is_active, updated_at)
    = (select r.email, r.first_name, r.last_name, r.phone, r.is_active, clock_timestamp()
    from jsonb_populate_record(u, $2::jsonb) r)
where u.id = $1

-- name: set_user_roles :exec
-- Exactly these; triggers keep the sum of their permissions.
with taken as (
    delete from user_roles where user_id = $1 and role_id <> all ($2)
)
insert into user_roles (organization_id, user_id, role_id)
select current_organization_id(), $1, role_id from unnest($2::bigint[]) role_id
on conflict do nothing

-- name: search_user_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_user_ids($1, $2))
