-- name: template_columns :fragment
-- The single GET and the items of the list.
t.id, t.organization_id, t.name, t.description, t.campaign_type, t.subject, t.content, t.is_active, t.created_by,
t.created_at, t.updated_at

-- name: get_campaign_template :one
-- The single GET.
select {template_columns} from campaign_templates t where t.id = $1 and t.deleted_at is null

-- name: lock_campaign_template :one
-- What GET gives, locked for a change.
select {template_columns} from campaign_templates t where t.id = $1 and t.deleted_at is null for no key update

-- name: list_campaign_templates :many
-- Newest first; a filter that is null lets all through.
select {template_columns}, count(*) over () as total from campaign_templates t
where t.deleted_at is null and ($1::text is null or t.campaign_type = $1)
    and ($2::boolean is null or t.is_active = $2)
order by t.id desc limit $3 offset $4

-- name: create_campaign_template :one
-- Every column that a client may set comes in the record.
insert into campaign_templates as t (organization_id, name, description, campaign_type, subject, content, is_active,
    created_by)
select current_organization_id(), r.name, r.description, r.campaign_type, r.subject, r.content, r.is_active,
    current_user_id()
from jsonb_populate_record(null::campaign_templates, $1::jsonb) r
returning {template_columns}

-- name: update_campaign_template :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it.
update campaign_templates t set (name, description, campaign_type, subject, content, is_active, updated_at)
    = (select r.name, r.description, r.campaign_type, r.subject, r.content, r.is_active, clock_timestamp()
    from jsonb_populate_record(t, $2::jsonb) r)
where t.id = $1 and t.deleted_at is null
returning {template_columns}

-- name: delete_campaign_template :exec
-- Softly. Campaigns that were made from it keep their texts.
update campaign_templates set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
where id = $1 and deleted_at is null

-- name: restore_campaign_template :one
-- Undoes the soft delete.
update campaign_templates t set deleted_at = null, updated_at = clock_timestamp()
where t.id = $1 and t.deleted_at is not null
returning {template_columns}
