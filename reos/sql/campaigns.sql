-- name: campaign_columns :fragment
-- The single GET, the items of the list and the data of events.
c.id, c.organization_id, c.name, c.description, c.campaign_type, c.status, c.subject, c.content, c.template_id,
c.metadata, c.scheduled_at, c.started_at, c.completed_at, c.pause_reason, c.total_recipients, c.sent_count,
c.delivered_count, c.opened_count, c.clicked_count, c.bounced_count, c.unsubscribed_count, c.failed_count,
c.suppressed_count, c.unknown_count, c.created_by, c.created_at, c.updated_at

-- name: get_campaign :one
-- The single GET.
select {campaign_columns} from campaigns c where c.id = $1 and c.deleted_at is null

-- name: lock_campaign :one
-- What GET gives, locked for a change; what sends it waits, and so do its counters.
select {campaign_columns} from campaigns c where c.id = $1 and c.deleted_at is null for no key update

-- name: campaign_exists :value
-- Recipients of a deleted or foreign campaign are as absent as it is.
select exists (select from campaigns where id = $1 and deleted_at is null)

-- name: create_campaign :one
-- A draft.
insert into campaigns as c (organization_id, name, description, campaign_type, subject, content, template_id, metadata,
    created_by)
select current_organization_id(), r.name, r.description, r.campaign_type, r.subject, r.content, r.template_id,
    r.metadata, current_user_id()
from jsonb_populate_record(null::campaigns, $1::jsonb) r
returning {campaign_columns}

-- name: update_campaign :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it.
update campaigns c set (name, description, campaign_type, subject, content, template_id, metadata, updated_at)
    = (select r.name, r.description, r.campaign_type, r.subject, r.content, r.template_id, r.metadata,
    clock_timestamp() from jsonb_populate_record(c, $2::jsonb) r)
where c.id = $1 and c.deleted_at is null
returning {campaign_columns}

-- name: delete_campaign :exec
-- Softly: hidden everywhere until it is purged.
update campaigns set deleted_at = clock_timestamp(), updated_at = clock_timestamp()
where id = $1 and deleted_at is null

-- name: restore_campaign :one
-- Undoes the soft delete.
update campaigns c set deleted_at = null, updated_at = clock_timestamp() where c.id = $1 and c.deleted_at is not null
returning {campaign_columns}

-- name: start_campaign :one
-- Sent, resumed or due: what ran before is overtaken, and errors are counted anew.
update campaigns c set status = $2, scheduled_at = $3, pause_reason = null, job_number = c.job_number + 1,
    started_at = coalesce(c.started_at, case when $2 = 'in_progress' then clock_timestamp() end),
    tried_since_start = 0, failed_since_start = 0, updated_at = clock_timestamp()
where c.id = $1 and c.deleted_at is null
returning {campaign_columns}, c.job_number

-- name: stop_campaign :one
-- Paused (with a reason when nobody did it) or cancelled: the job that runs is overtaken.
update campaigns c set status = $2, pause_reason = $3, job_number = c.job_number + 1, updated_at = clock_timestamp()
where c.id = $1 and c.deleted_at is null
returning {campaign_columns}

-- name: complete_campaign :one
-- Nobody is left to write to; the export is that of a campaign which the service does not send itself.
update campaigns c set status = 'completed', completed_at = clock_timestamp(), updated_at = clock_timestamp(),
    export_file_id = $2
where c.id = $1
returning {campaign_columns}

-- name: get_campaign_export :one
-- The file, once it is there.
select f.id as file_id, f.storage_key, f.content_type
from campaigns c join stored_files f on f.organization_id = c.organization_id and f.id = c.export_file_id
where c.id = $1 and c.deleted_at is null and not f.is_pending

-- name: get_export_file :one
-- What a signed link leads to, as long as the campaign is there.
select c.id as campaign_id, f.storage_key, f.content_type, f.size_bytes
from campaigns c join stored_files f on f.organization_id = c.organization_id and f.id = c.export_file_id
where c.id = $1 and c.deleted_at is null and not f.is_pending

-- name: search_campaign_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_campaign_ids($1, $2))

-- name: get_campaign_stats :one
-- One scan, grouped by both enumerations; the counts are summed up along each.
with counted as (
    select c.status, c.campaign_type, count(*) as campaigns, sum(c.sent_count) as sent,
        sum(c.delivered_count) as delivered, sum(c.opened_count) as opened, sum(c.clicked_count) as clicked
    from campaigns c where c.deleted_at is null group by c.status, c.campaign_type
), totals as (
    select coalesce(sum(campaigns), 0)::bigint as campaigns, coalesce(sum(sent), 0)::bigint as sent,
        coalesce(sum(delivered), 0)::bigint as delivered, coalesce(sum(opened), 0)::bigint as opened,
        coalesce(sum(clicked), 0)::bigint as clicked
    from counted
)
select t.campaigns as total_campaigns, t.sent as total_sent, t.delivered as total_delivered, t.opened as total_opened,
    t.clicked as total_clicked,
    coalesce(round(100.0 * t.delivered / nullif(t.sent, 0), 2), 0)::float8 as delivery_rate,
    coalesce(round(100.0 * t.opened / nullif(t.delivered, 0), 2), 0)::float8 as open_rate,
    coalesce(round(100.0 * t.clicked / nullif(t.opened, 0), 2), 0)::float8 as click_rate,
    (select coalesce(jsonb_object_agg(s.status, s.campaigns), '{}')
        from (select status, sum(campaigns) as campaigns from counted group by status) s) as by_status,
    (select coalesce(jsonb_object_agg(s.campaign_type, s.campaigns), '{}')
        from (select campaign_type, sum(campaigns) as campaigns from counted group by campaign_type) s) as by_type
from totals t

-- name: get_example_values :one
-- What a preview without a lead knows: the organisation, and who made the campaign.
select o.name as organization_name, (select u.first_name || ' ' || u.last_name from users u where u.id = $1) as agent_name
from organizations o where o.id = current_organization_id()

-- name: get_lead_values :one
-- The merge fields of a lead. The property is that of its newest deal; the agent is who looks after the lead, or else
-- who made the campaign ($2).
select l.first_name, l.last_name, l.email, l.company, o.name as organization_name,
    (select u.first_name || ' ' || u.last_name from users u where u.id = coalesce(l.assigned_to, $2)) as agent_name,
    (select p.address from deals d
        join properties p on p.organization_id = d.organization_id and p.id = d.property_id and p.deleted_at is null
        where d.lead_id = l.id and d.deleted_at is null order by d.id desc limit 1) as property_address
from leads l join organizations o on o.id = l.organization_id
where l.id = $1 and l.deleted_at is null
