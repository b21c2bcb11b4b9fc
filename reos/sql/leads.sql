-- name: lead_columns :fragment
-- The single GET, the items of the list and the data of events.
l.id, l.organization_id, l.first_name, l.last_name, l.email, l.phone, l.company, l.source, l.status, l.score, l.budget,
l.timeline, l.notes, l.metadata, l.assigned_to, l.created_by, l.created_at, l.updated_at, l.last_contacted_at,
l.deleted_at

-- name: lead_cells :fragment
-- The same for a file, in which what is JSON is text.
l.id, l.organization_id, l.first_name, l.last_name, l.email, l.phone, l.company, l.source, l.status, l.score, l.budget,
l.timeline, l.notes, l.metadata::text as metadata, l.assigned_to, l.created_by, l.created_at, l.updated_at,
l.last_contacted_at, l.deleted_at

-- name: get_lead :one
-- The single GET.
select {lead_columns} from leads l where l.id = $1 and l.deleted_at is null

-- name: lock_lead :one
-- What GET gives, locked for a change: `no key update`, so that rows which refer to it do not wait.
select {lead_columns} from leads l where l.id = $1 and l.deleted_at is null for no key update

-- name: lock_deleted_lead :one
-- The same for a restore.
select {lead_columns} from leads l where l.id = $1 and l.deleted_at is not null for no key update

-- name: get_lead_agent :value
-- Whom something new about the lead falls to. Who has left keeps the lead, but gets nothing new.
select u.id from leads l
join users u on u.organization_id = l.organization_id and u.id = l.assigned_to and u.is_active
where l.id = $1 and l.deleted_at is null

-- name: lead_exists :value
-- Sub-resources of a deleted or foreign lead are as absent as it is.
select exists (select from leads where id = $1 and deleted_at is null)

-- name: create_lead :one
-- Every column that a client may set comes in the record.
insert into leads as l (organization_id, first_name, last_name, email, phone, company, source, status, score, budget,
    timeline, notes, metadata, assigned_to, created_by)
select current_organization_id(), r.first_name, r.last_name, r.email, r.phone, r.company, r.source, r.status, r.score,
    r.budget, r.timeline, r.notes, r.metadata, r.assigned_to, current_user_id()
from jsonb_populate_record(null::leads, $1::jsonb) r
returning {lead_columns}

-- name: update_lead :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it.
update leads l set (first_name, last_name, email, phone, company, source, status, score, budget, timeline, notes,
    metadata, assigned_to, last_contacted_at, updated_at)
    = (select r.first_name, r.last_name, r.email, r.phone, r.company, r.source, r.status, r.score, r.budget, r.timeline,
    r.notes, r.metadata, r.assigned_to, r.last_contacted_at, clock_timestamp()
    from jsonb_populate_record(l, $2::jsonb) r)
where l.id = $1 and l.deleted_at is null
returning {lead_columns}

-- name: delete_lead :exec
-- Softly: hidden everywhere until it is purged.
update leads set deleted_at = clock_timestamp(), updated_at = clock_timestamp() where id = $1 and deleted_at is null

-- name: restore_lead :one
-- Undoes the soft delete.
update leads l set deleted_at = null, updated_at = clock_timestamp() where l.id = $1 and l.deleted_at is not null
returning {lead_columns}

-- name: search_lead_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_lead_ids($1, $2))

-- name: get_lead_stats :one
-- One scan, grouped by both enumerations; the counts are summed up along each.
with counted as (
    select l.status, l.source, count(*) as leads, sum(l.score) as score
    from leads l where l.deleted_at is null group by l.status, l.source
), totals as (
    select coalesce(sum(leads), 0)::bigint as leads, coalesce(sum(score), 0) as score,
        coalesce(sum(leads) filter (where status = 'converted'), 0) as converted
    from counted
)
select t.leads as total_leads,
    (select coalesce(jsonb_object_agg(s.status, s.leads), '{}')
        from (select status, sum(leads) as leads from counted group by status) s) as by_status,
    (select coalesce(jsonb_object_agg(s.source, s.leads), '{}')
        from (select source, sum(leads) as leads from counted group by source) s) as by_source,
    coalesce(round(t.score::numeric / nullif(t.leads, 0), 2), 0)::float8 as avg_score,
    coalesce(round(100.0 * t.converted / nullif(t.leads, 0), 2), 0)::float8 as conversion_rate
from totals t

-- name: activity_columns :fragment
a.id, a.lead_id, a.activity_type, a.subject, a.description, a.outcome, a.scheduled_at, a.completed_at, a.metadata,
a.created_by, a.created_at

-- name: list_lead_activities :many
-- Newest first.
select {activity_columns}, count(*) over () as total from lead_activities a where a.lead_id = $1
order by a.id desc limit $2 offset $3

-- name: create_lead_activity :one
-- What is recorded stays as it is: activities are never changed.
insert into lead_activities as a (organization_id, lead_id, activity_type, subject, description, outcome, scheduled_at,
    completed_at, metadata, created_by)
select current_organization_id(), $1, r.activity_type, r.subject, r.description, r.outcome, r.scheduled_at,
    r.completed_at, r.metadata, current_user_id()
from jsonb_populate_record(null::lead_activities, $2::jsonb) r
returning {activity_columns}

-- name: note_columns :fragment
n.id, n.lead_id, n.content, n.is_pinned, n.created_by, n.created_at

-- name: list_lead_notes :many
-- Pinned ones first, then newest first.
select {note_columns}, count(*) over () as total from lead_notes n where n.lead_id = $1
order by n.is_pinned desc, n.id desc limit $2 offset $3

-- name: create_lead_note :one
-- Notes are never changed either.
insert into lead_notes as n (organization_id, lead_id, content, is_pinned, created_by)
values (current_organization_id(), $1, $2, $3, current_user_id())
returning {note_columns}

-- name: document_columns :fragment
d.id, d.lead_id, d.title, d.file_path, d.file_name, d.file_type, d.file_size, d.created_by, d.created_at

-- name: list_lead_documents :many
-- Newest first.
select {document_columns}, count(*) over () as total from lead_documents d where d.lead_id = $1
order by d.id desc limit $2 offset $3

-- name: create_lead_document :one
-- Either a path or a file, as the table's check says.
insert into lead_documents as d (organization_id, lead_id, title, file_path, file_id, file_name, file_type, file_size,
    created_by)
values (current_organization_id(), $1, $2, $3, $4, $5, $6, $7, current_user_id())
returning {document_columns}

-- name: get_lead_document :one
-- For its download; the file's columns are null when the document lies elsewhere. With a deleted lead it is gone too.
select {document_columns}, f.storage_key, f.content_type
from lead_documents d
join leads l on l.organization_id = d.organization_id and l.id = d.lead_id and l.deleted_at is null
left join stored_files f on f.organization_id = d.organization_id and f.id = d.file_id and not f.is_pending
where d.lead_id = $1 and d.id = $2

-- name: get_document_file :one
-- What a signed link leads to, as long as the lead is there.
select d.file_name, f.storage_key, f.content_type, f.size_bytes
from lead_documents d
join leads l on l.organization_id = d.organization_id and l.id = d.lead_id
join stored_files f on f.organization_id = d.organization_id and f.id = d.file_id
where d.id = $1 and l.deleted_at is null and not f.is_pending
