-- name: record_changes :exec
-- The last statement of a writing transaction: its audit rows, the webhook deliveries of its events with the jobs that
-- send them, then its events under the organisation's counter, then one notification if anybody listens. COMMIT
-- follows directly, so the counter's row is held as short as can be and no lock is taken after it. The deliveries come
-- before it, because they lock their endpoints: the counter is taken only when their number is known.
with audited as (
    insert into audit_logs (organization_id, action, resource_type, resource_id, changes, user_id, ip_address,
        user_agent, request_id)
    select current_organization_id(), a.action, a.resource_type, a.resource_id, a.changes, a.user_id, a.ip_address,
        a.user_agent, a.request_id
    from jsonb_to_recordset($1::jsonb) a (action text, resource_type text, resource_id bigint, changes jsonb,
        user_id bigint, ip_address text, user_agent text, request_id text)
), queued as (
    select case when exists (select from webhook_endpoints w where w.is_active
        and w.event_types && array(select e ->> 'type' from jsonb_array_elements($2::jsonb) e))
        then queue_deliveries($2::jsonb) else 0 end as deliveries
    where jsonb_array_length($2::jsonb) > 0
), counter as (
    update event_counters set last_id = last_id + jsonb_array_length($2::jsonb)
    where organization_id = current_organization_id() and (select deliveries from queued) is not null
    returning organization_id, last_id, listened_until
), published as (
    insert into events (organization_id, id, type, resource_type, resource_id, data, actor_id)
    select c.organization_id, c.last_id - jsonb_array_length($2::jsonb) + e.position, e.event ->> 'type',
        e.event ->> 'resource_type', (e.event ->> 'resource_id')::bigint, e.event -> 'data', current_user_id()
    from counter c, jsonb_array_elements($2::jsonb) with ordinality e (event, position)
)
select pg_notify('reos_events', c.organization_id || ':' || c.last_id)
from counter c where c.listened_until > clock_timestamp()

-- name: list_events_after :many
-- What a stream missed, or what a notification announced: a page in commit order. It is bounded in bytes too (and
-- has at least one row), because the data of one event may be as large as a request's body.
select id, type, resource_type, data, created_at
from (
    select e.*, sum(octet_length(e.data::text)) over (order by e.id) - octet_length(e.data::text) as bytes_before
    from (
        select id, type, resource_type, data, created_at from events where id > $1 order by id limit $2
    ) e
) page
where bytes_before < 524288
order by id

-- name: get_event_bounds :one
-- Where the kept events start and end; a counter without events has an empty range.
select c.last_id, coalesce((select min(id) from events), c.last_id + 1) as first_id from event_counters c

-- name: announce_streams :exec
-- All streams of a process; organisations that are not named have none there.
select announce_streams($1, $2, $3)

-- name: list_live_sessions :many
-- Which of the streams' sessions still live, what their users may read, and the newest event of their organisation.
select organization_id, session_id, user_id, permissions, last_event_id from live_sessions($1, $2)

-- name: count_streams :value
-- Over all web processes that gave a sign of life within a minute.
select coalesce(sum(connections), 0)::bigint from stream_listeners where seen_at > now() - interval '1 minute'

-- name: probe :value
-- A listening connection is silent for hours; this tells a quiet one from a dead one.
select 1

-- name: purge_events :value
-- Days; the function refuses less than one.
select purge_events($1)
