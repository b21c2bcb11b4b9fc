-- name: find_organizations :many
-- By name or slug, as reos_owner: row security shows the service one organisation at a time.
select id, name, slug from organizations where lower(name) = lower($1) or slug = $1 order by id
