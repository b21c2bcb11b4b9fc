-- name: team_columns :fragment
-- Deactivated members stay, and are counted as they are listed.
t.id, t.organization_id, t.name, t.description,
(select count(*) from team_members m where m.team_id = t.id) as member_count, t.created_at, t.updated_at

-- name: member_columns :fragment
-- Names, so that a list of members can be shown; the rest is for who may read users.
m.user_id, u.first_name, u.last_name, u.is_active, m.role, m.created_at

-- name: get_team :one
-- Without its members, which hold times and so come as rows, not as JSON.
select {team_columns} from teams t where t.id = $1

-- name: list_team_members :many
-- Leaders first.
select {member_columns}
from team_members m join users u on u.organization_id = m.organization_id and u.id = m.user_id
where m.team_id = $1 order by m.role = 'leader' desc, m.created_at, m.user_id

-- name: lock_team :value
-- Read after it, in a statement of its own, because the members stand in another table.
select id from teams where id = $1 for no key update

-- name: insert_team :value
-- Without members.
insert into teams (organization_id, name, description) values (current_organization_id(), $1, $2) returning id

-- name: update_team :exec
-- The patch is merged into the row. An empty one marks a team as changed whose members have.
update teams t set (name, description, updated_at)
    = (select p.name, p.description, clock_timestamp() from jsonb_populate_record(t, $2::jsonb) p)
where t.id = $1

-- name: delete_team :exec
-- For good, with its memberships.
delete from teams where id = $1

-- name: get_candidate :one
-- Whoever is to become a member.
select u.is_active from users u where u.id = $1

-- name: add_team_member :one
-- As the list of members has it.
with created as (
    insert into team_members (organization_id, team_id, user_id, role) values (current_organization_id(), $1, $2, $3)
    returning organization_id, user_id, role, created_at
)
select {member_columns}
from created m join users u on u.organization_id = m.organization_id and u.id = m.user_id

-- name: remove_team_member :one
-- What was removed tells the audit row.
delete from team_members where team_id = $1 and user_id = $2 returning user_id, role
