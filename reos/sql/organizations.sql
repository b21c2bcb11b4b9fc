-- name: get_time_zone :value
-- The IANA name that days and months are reckoned in.
select coalesce(settings ->> 'timezone', 'UTC') from organizations where id = current_organization_id()

-- name: organization_columns :fragment
-- The organisation as every answer gives it.
o.id, o.name, o.slug, o.settings, o.is_active, o.created_at, o.updated_at

-- name: get_organization :one
-- The transaction's own: row security shows no other.
select {organization_columns} from organizations o where o.id = current_organization_id()

-- name: lock_organization :one
-- The same, locked for a change.
select {organization_columns} from organizations o where o.id = current_organization_id() for no key update

-- name: update_organization :one
-- The patch is merged into the row.
update organizations o set (name, slug, settings, updated_at)
    = (select r.name, r.slug, r.settings, clock_timestamp() from jsonb_populate_record(o, $1::jsonb) r)
where o.id = current_organization_id()
returning {organization_columns}

-- name: knows_time_zone :value
-- Whether Postgres can reckon in it too.
select knows_time_zone($1)
