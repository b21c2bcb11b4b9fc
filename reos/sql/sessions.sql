-- name: create_session :value
-- A family of refresh tokens begins.
insert into sessions (organization_id, user_id, ip_address, user_agent, expires_at)
values (current_organization_id(), $1, $2, $3, now() + make_interval(days => $4))
returning id

-- name: lock_session :one
-- Refreshes of one family come one after the other. The user and the organisation must still be active.
select s.id, s.user_id, s.generation, s.refresh_hash, u.is_active, o.is_active as organization_is_active,
    s.revoked_at is not null as is_revoked, s.expires_at <= now() as is_expired,
    s.rotated_at > clock_timestamp() - make_interval(secs => $2) as is_just_rotated
from sessions s
join users u on u.organization_id = s.organization_id and u.id = s.user_id
join organizations o on o.id = s.organization_id
where s.id = $1
for no key update of s

-- name: rotate_session :exec
-- Whoever works goes on: the family's time begins anew with each rotation, but it has an end that no rotation moves.
-- The clock, not the transaction's start, because the transaction may have waited for the row.
update sessions set generation = $2, refresh_hash = $3, rotated_at = clock_timestamp(), last_used_at = clock_timestamp(),
    expires_at = least(clock_timestamp() + make_interval(days => $4), created_at + make_interval(days => $5))
where id = $1

-- name: revoke_session :value
-- One session, if it still lives.
update sessions set revoked_at = now() where id = $1 and user_id = $2 and revoked_at is null and expires_at > now()
returning id

-- name: revoke_sessions :exec
-- All of a user's sessions but one (null: all).
update sessions set revoked_at = now() where user_id = $1 and revoked_at is null and id is distinct from $2::bigint

-- name: list_sessions :many
-- Those that still live, newest first.
select s.id, s.ip_address, s.user_agent, s.created_at, s.last_used_at, s.expires_at, s.id = $2 as is_current,
    count(*) over () as total
from sessions s
where s.user_id = $1 and s.revoked_at is null and s.expires_at > now()
order by s.id desc limit $3 offset $4
