-- name: property_columns :fragment
-- The single GET, the items of the list and the data of events. Money stays numeric (a string in JSON), other
-- numbers are cast to float8 (numbers in JSON).
p.id, p.organization_id, p.address, p.city, p.state, p.zip_code, p.country, p.latitude::float8 as latitude,
p.longitude::float8 as longitude, p.property_type, p.status, p.price, p.bedrooms,
p.bathrooms::float8 as bathrooms, p.square_feet, p.lot_size, p.year_built, p.description, p.features, p.metadata,
p.created_by, p.created_at, p.updated_at, p.deleted_at

-- name: property_cells :fragment
-- The same for a file, in which what is JSON is text.
p.id, p.organization_id, p.address, p.city, p.state, p.zip_code, p.country, p.latitude::float8 as latitude,
p.longitude::float8 as longitude, p.property_type, p.status, p.price, p.bedrooms,
p.bathrooms::float8 as bathrooms, p.square_feet, p.lot_size, p.year_built, p.description,
p.features::text as features, p.metadata::text as metadata, p.created_by, p.created_at, p.updated_at, p.deleted_at

-- name: get_property :one
-- The single GET.
select {property_columns} from properties p where p.id = $1 and p.deleted_at is null

-- name: lock_property :one
-- What GET gives, locked for a change: `no key update`, so that rows which refer to it do not wait.
select {property_columns} from properties p where p.id = $1 and p.deleted_at is null for no key update

-- name: lock_deleted_property :one
-- The same for a restore.
select {property_columns} from properties p where p.id = $1 and p.deleted_at is not null for no key update

-- name: lock_properties :many
-- For what a deal does to them, so deleted ones too; in the order of their ids, so that two deals which swap
-- properties cannot deadlock.
select {property_columns}, p.status_deal_id from properties p where p.id = any($1::bigint[])
order by p.id for no key update

-- name: property_is_held :value
-- Whether a deal has it under contract: then its status is not set by hand.
select status_deal_id is not null and status = 'under_contract' from properties where id = $1

-- name: set_property_statuses :many
-- What deals make of their properties; deal_id is null where one has let go.
update properties p set status = r.status, status_deal_id = r.deal_id, updated_at = clock_timestamp()
from jsonb_to_recordset($1::jsonb) r (id bigint, status text, deal_id bigint)
where p.id = r.id
returning {property_columns}

-- name: property_exists :value
-- Sub-resources of a deleted or foreign property are as absent as it is.
select exists (select from properties where id = $1 and deleted_at is null)

-- name: create_property :one
-- Absent fields take the columns' defaults through the record that the body is merged into.
insert into properties as p (organization_id, address, city, state, zip_code, country, latitude, longitude,
    property_type, status, price, bedrooms, bathrooms, square_feet, lot_size, year_built, description, features,
    metadata, created_by)
select current_organization_id(), r.address, r.city, r.state, r.zip_code, r.country, r.latitude, r.longitude,
    r.property_type, r.status, r.price, r.bedrooms, r.bathrooms, r.square_feet, r.lot_size, r.year_built,
    r.description, r.features, r.metadata, current_user_id()
from jsonb_populate_record(null::properties, $1::jsonb) r
returning {property_columns}

-- name: update_property :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it. The clock, because the
-- transaction may have begun before the one whose lock it waited for, and a later change must not look older.
-- A status set by hand is no deal's any more.
update properties p set (address, city, state, zip_code, country, latitude, longitude, property_type, status, price,
    bedrooms, bathrooms, square_feet, lot_size, year_built, description, features, metadata, status_deal_id, updated_at)
    = (select r.address, r.city, r.state, r.zip_code, r.country, r.latitude, r.longitude, r.property_type, r.status,
    r.price, r.bedrooms, r.bathrooms, r.square_feet, r.lot_size, r.year_built, r.description, r.features, r.metadata,
    case when r.status = p.status then p.status_deal_id end, clock_timestamp()
    from jsonb_populate_record(p, $2::jsonb) r)
where p.id = $1 and p.deleted_at is null
returning {property_columns}

-- name: delete_property :exec
-- Softly: hidden everywhere until it is purged.
update properties set deleted_at = clock_timestamp(), updated_at = clock_timestamp() where id = $1 and deleted_at is null

-- name: restore_property :one
-- Undoes the soft delete.
update properties p set deleted_at = null, updated_at = clock_timestamp() where p.id = $1 and p.deleted_at is not null
returning {property_columns}

-- name: list_existing_properties :many
-- Which of the ids in a body lead to something.
select id from properties where id = any($1::bigint[]) and deleted_at is null

-- name: list_portfolio_properties :many
-- Deleted properties are never shown.
select {property_columns} from portfolio_properties m join properties p on p.id = m.property_id and p.deleted_at is null
where m.portfolio_id = $1 order by p.id

-- name: search_property_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_property_ids($1, $2))

-- name: image_columns :fragment
i.id, i.property_id, i.url, i.file_id, i.thumbnail_file_id, i.title, i.description, i."order", i.is_primary,
i.created_by, i.created_at

-- name: list_property_images :many
-- The primary picture first, then in their order.
select {image_columns}, count(*) over () as total from property_images i where i.property_id = $1
order by i.is_primary desc, i."order", i.id limit $2 offset $3

-- name: clear_primary_image :exec
-- At most one is primary: the new one takes over.
update property_images set is_primary = false where property_id = $1 and is_primary

-- name: create_property_image :one
-- Either a link or files, as the table's check says.
insert into property_images as i (organization_id, property_id, url, file_id, thumbnail_file_id, title, description,
    "order", is_primary, created_by)
values (current_organization_id(), $1, $2, $3, $4, $5, $6, $7, $8, current_user_id())
returning {image_columns}

-- name: delete_property_image :one
-- What is deleted tells which files go with it.
delete from property_images i where i.property_id = $1 and i.id = $2 returning {image_columns}

-- name: valuation_columns :fragment
v.id, v.property_id, v.value, v.valuation_date, v.source, v.notes, v.created_by, v.created_at

-- name: list_property_valuations :many
-- Newest first by the day of the valuation.
select {valuation_columns}, count(*) over () as total from property_valuations v where v.property_id = $1
order by v.valuation_date desc, v.id desc limit $2 offset $3

-- name: create_property_valuation :one
-- By whom, the transaction says.
insert into property_valuations as v (organization_id, property_id, value, valuation_date, source, notes, created_by)
values (current_organization_id(), $1, $2, $3, $4, $5, current_user_id())
returning {valuation_columns}

-- name: note_columns :fragment
n.id, n.property_id, n.content, n.created_by, n.created_at

-- name: list_property_notes :many
-- Newest first.
select {note_columns}, count(*) over () as total from property_notes n where n.property_id = $1
order by n.id desc limit $2 offset $3

-- name: create_property_note :one
-- By whom, the transaction says.
insert into property_notes as n (organization_id, property_id, content, created_by)
values (current_organization_id(), $1, $2, current_user_id())
returning {note_columns}

-- name: activity_columns :fragment
a.id, a.property_id, a.activity_type, a.description, a.metadata, a.created_by, a.created_at

-- name: list_property_activities :many
-- Newest first.
select {activity_columns}, count(*) over () as total from property_activities a where a.property_id = $1
order by a.id desc limit $2 offset $3

-- name: create_property_activity :one
-- By whom, the transaction says.
insert into property_activities as a (organization_id, property_id, activity_type, description, metadata, created_by)
values (current_organization_id(), $1, $2, $3, $4, current_user_id())
returning {activity_columns}
