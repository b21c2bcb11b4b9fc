-- name: deal_columns :fragment
-- The single GET, the items of the list and the data of events.
d.id, d.organization_id, d.property_id, d.lead_id, d.deal_type, d.stage, d.value, d.commission_rate, d.probability,
d.expected_close_date, d.assigned_to, d.notes, d.metadata, d.created_by, d.closed_at, d.created_at, d.updated_at,
d.deleted_at

-- name: deal_cells :fragment
-- The same for a file, in which what is JSON is text.
d.id, d.organization_id, d.property_id, d.lead_id, d.deal_type, d.stage, d.value, d.commission_rate, d.probability,
d.expected_close_date, d.assigned_to, d.notes, d.metadata::text as metadata, d.created_by, d.closed_at, d.created_at,
d.updated_at, d.deleted_at

-- name: get_deal :one
-- The single GET.
select {deal_columns} from deals d where d.id = $1 and d.deleted_at is null

-- name: lock_deal :one
-- What GET gives, locked for a change: `no key update`, so that rows which refer to it do not wait.
select {deal_columns} from deals d where d.id = $1 and d.deleted_at is null for no key update

-- name: lock_deleted_deal :one
-- The same for a restore.
select {deal_columns} from deals d where d.id = $1 and d.deleted_at is not null for no key update

-- name: deal_exists :value
-- Sub-resources of a deleted or foreign deal are as absent as it is.
select exists (select from deals where id = $1 and deleted_at is null)

-- name: has_open_deal :value
-- Whether a property can be deleted. The property is locked, and so would have to be for another deal.
select exists (select from deals where property_id = $1 and deleted_at is null
    and stage not in ('closed_won', 'closed_lost'))

-- name: hold_lead :value
-- A lead that a deal is about to name stays as it is until then: neither deleted nor renamed.
select id from leads where id = $1 and deleted_at is null for share

-- name: create_deal :one
-- With the first entry of its history. Absent fields take the columns' defaults through the record that the body is
-- merged into.
with created as (
    insert into deals (organization_id, property_id, lead_id, deal_type, stage, value, commission_rate, probability,
        expected_close_date, assigned_to, notes, metadata, created_by, closed_at)
    select current_organization_id(), r.property_id, r.lead_id, r.deal_type, r.stage, r.value, r.commission_rate,
        r.probability, r.expected_close_date, r.assigned_to, r.notes, r.metadata, current_user_id(),
        case when r.stage in ('closed_won', 'closed_lost') then now() end
    from jsonb_populate_record(null::deals, $1::jsonb) r
    returning *
), noted as (
    insert into deal_stage_changes (organization_id, deal_id, new_stage, changed_by)
    select organization_id, id, stage, created_by from created
)
select {deal_columns} from created d

-- name: update_deal :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it. A deal is closed when it gets
-- there; reopened, it has never been closed.
update deals d set (property_id, lead_id, deal_type, stage, value, commission_rate, probability, expected_close_date,
    assigned_to, notes, metadata, closed_at, updated_at)
    = (select r.property_id, r.lead_id, r.deal_type, r.stage, r.value, r.commission_rate, r.probability,
    r.expected_close_date, r.assigned_to, r.notes, r.metadata,
    case when r.stage in ('closed_won', 'closed_lost') then coalesce(d.closed_at, clock_timestamp()) end,
    clock_timestamp() from jsonb_populate_record(d, $2::jsonb) r)
where d.id = $1 and d.deleted_at is null
returning {deal_columns}

-- name: add_stage_change :value
-- From the clock and not from now(), because this transaction may have waited for the change before.
insert into deal_stage_changes (organization_id, deal_id, old_stage, new_stage, changed_by, changed_at,
    duration_seconds)
select d.organization_id, d.id, $2, d.stage, current_user_id(), clock.now,
    greatest(0, floor(extract(epoch from clock.now - coalesce(last.changed_at, d.created_at))))
from deals d
cross join (select clock_timestamp() as now) clock
left join lateral (
    select c.changed_at from deal_stage_changes c where c.deal_id = d.id order by c.id desc limit 1
) last on true
where d.id = $1
returning id

-- name: list_stage_changes :many
-- Newest first.
select c.id, c.deal_id, c.old_stage, c.new_stage, c.changed_by, c.changed_at, c.duration_seconds,
    count(*) over () as total
from deal_stage_changes c where c.deal_id = $1 order by c.id desc limit $2 offset $3

-- name: get_stage_change :one
-- What the mail about it says. Nothing when the deal is gone.
select c.deal_id, c.old_stage, c.new_stage, d.value, p.address, p.city, u.first_name, u.last_name
from deal_stage_changes c
join deals d on d.id = c.deal_id and d.deleted_at is null
join properties p on p.id = d.property_id
left join users u on u.id = c.changed_by
where c.id = $1

-- name: delete_deal :exec
-- Softly: hidden everywhere until it is purged.
update deals set deleted_at = clock_timestamp(), updated_at = clock_timestamp() where id = $1 and deleted_at is null

-- name: restore_deal :one
-- Undoes the soft delete.
update deals d set deleted_at = null, updated_at = clock_timestamp() where d.id = $1 and d.deleted_at is not null
returning {deal_columns}

-- name: search_deal_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_deal_ids($1, $2))

-- name: get_deal_stats :one
-- One scan; the groups are few.
with groups as (
    select stage, deal_type, count(*) as deals, sum(value) as value
    from deals where deleted_at is null group by stage, deal_type
), sums as (
    select coalesce(sum(deals), 0)::bigint as total_deals, coalesce(sum(value), 0)::numeric(24, 2) as total_value,
        coalesce(sum(deals) filter (where stage = 'closed_won'), 0)::bigint as won_deals,
        coalesce(sum(deals) filter (where stage = 'closed_lost'), 0)::bigint as lost_deals
    from groups
)
select total_deals, total_value,
    coalesce(total_value / nullif(total_deals, 0), 0)::numeric(24, 2) as avg_deal_value, won_deals, lost_deals,
    coalesce(round(100.0 * won_deals / nullif(won_deals + lost_deals, 0), 2), 0)::float8 as win_rate,
    (select coalesce(jsonb_object_agg(stage, deals), '{}')
        from (select stage, sum(deals) as deals from groups group by stage) s) as by_stage,
    (select coalesce(jsonb_object_agg(deal_type, deals), '{}')
        from (select deal_type, sum(deals) as deals from groups group by deal_type) t) as by_type
from sums
