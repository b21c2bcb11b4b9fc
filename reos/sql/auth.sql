-- name: register_organization :one
-- Makes the organisation with its system roles and its first Admin, and the tenant of the rest of the transaction.
select organization_id, user_id from register_organization($1, $2, $3, $4, $5, $6, $7, $8)

-- name: read_login :one
-- Before a tenant is known: whose address it is, its hash, and how its last tries went.
select organization_id, user_id, password_hash, is_active, organization_is_active, failures, wait_seconds,
    locked_seconds
from read_login($1, $2, $3)

-- name: record_login_failure :value
-- False when another try was recorded since the counter was read: then this one tells nothing.
select record_login_failure($1, $2, $3, make_interval(secs => $4), $5, $6)

-- name: record_login_success :value
-- False when a failure was recorded since the counter was read.
select record_login_success($1, $2, $3)

-- name: add_address_lookup :value
-- What a job will do about an address, known or not.
select add_address_lookup($1, $2, $3, $4, $5, $6)

-- name: note_login :exec
-- A log-in also ends a lock that has run out.
update users set last_login = now(), locked_until = null where id = $1

-- name: lock_user :one
-- Whoever changes a password or opens a session takes the user's row first, so that a session which is opened with
-- the old password is seen by the change that ends it. The hash comes through a function: the app role has no right
-- to the column.
select u.email, u.is_active, u.is_verified, read_password_hash(u.id) as password_hash
from users u where u.id = $1 for no key update

-- name: read_email :value
-- Of the user of the request, whose password is to be checked as at a log-in.
select u.email from users u where u.id = $1

-- name: set_password_hash :exec
-- Through a function, like the reading: the app role has no right to the column.
select set_password_hash($1, $2)

-- name: clear_login_attempts :exec
-- A reset, and an Admin, start the count anew.
select clear_login_attempts($1)

-- name: unlock_user :exec
-- What others see of the lock; the count of tries is cleared apart from it.
update users set locked_until = null where id = $1

-- name: verify_user :exec
-- The link of the mail has been used.
update users set is_verified = true, updated_at = clock_timestamp() where id = $1

-- name: get_me :one
-- The user with all that hangs on it, in one round trip. The roles are aggregated as JSON, which holds no times.
select u.id, u.organization_id, u.email, u.first_name, u.last_name, u.phone, u.is_active, u.is_verified,
    coalesce(u.locked_until > now(), false) as is_locked, u.is_superuser, u.last_login, u.created_at, u.updated_at,
    jsonb_build_object('id', o.id, 'name', o.name, 'slug', o.slug, 'settings', o.settings) as organization,
    coalesce((
        select jsonb_agg(jsonb_build_object('id', r.id, 'name', r.name, 'description', r.description) order by r.id)
        from user_roles ur join roles r on r.organization_id = ur.organization_id and r.id = ur.role_id
        where ur.organization_id = u.organization_id and ur.user_id = u.id
    ), '[]') as roles,
    u.permissions, u.preferences
from users u join organizations o on o.id = u.organization_id
where u.id = $1

-- name: lock_me :exec
-- Locks the row of which get_me then tells.
select 1 from users where id = $1 for no key update

-- name: update_me :exec
-- The patch is merged into the row; preferences are merged one by one.
update users u set (first_name, last_name, phone, preferences, updated_at)
    = (select r.first_name, r.last_name, r.phone, u.preferences || coalesce($2::jsonb -> 'preferences', '{}'),
        clock_timestamp()
    from jsonb_populate_record(u, $2::jsonb) r)
where u.id = $1
