-- name: webhook_columns :fragment
-- The single GET and the items of the list. No secret is among them: those stand in a table of their own.
w.id, w.organization_id, w.url, w.event_types, w.description, w.is_active, w.failing_since, w.disabled_reason,
w.created_by, w.created_at, w.updated_at

-- name: get_webhook :one
-- The single GET.
select {webhook_columns} from webhook_endpoints w where w.id = $1 and w.deleted_at is null

-- name: lock_webhook :one
-- What GET gives, locked: for a change, and by a job before it looks for what is due. Transactions with events lock the
-- endpoints that are subscribed to them too, so whoever has this lock sees all deliveries that are on their way.
select {webhook_columns} from webhook_endpoints w where w.id = $1 and w.deleted_at is null for no key update

-- name: insert_webhook :one
-- Its secret is set by another statement of the same transaction.
insert into webhook_endpoints as w (organization_id, url, event_types, description, is_active, created_by)
select current_organization_id(), r.url, r.event_types, r.description, r.is_active, current_user_id()
from jsonb_populate_record(null::webhook_endpoints, $1::jsonb) r
returning {webhook_columns}

-- name: update_webhook :one
-- The patch is merged into the row. What is switched on by hand, or gets another address, starts anew: its failures so
-- far count no more.
update webhook_endpoints w set (url, event_types, description, is_active, failing_since, disabled_reason, updated_at)
    = (select r.url, r.event_types, r.description, r.is_active,
        case when r.url = w.url and (w.is_active or not r.is_active) then w.failing_since end,
        case when not r.is_active then w.disabled_reason end, clock_timestamp()
    from jsonb_populate_record(w, $2::jsonb) r)
where w.id = $1 and w.deleted_at is null
returning {webhook_columns}

-- name: delete_webhook :exec
-- Gone for everybody, and its secrets with it. The row waits until its deliveries, which may be many, are removed.
update webhook_endpoints w set is_active = false, disabled_reason = null, deleted_at = clock_timestamp(),
    updated_at = clock_timestamp()
where w.id = $1 and w.deleted_at is null
returning forget_webhook_secrets(w.id)

-- name: disable_webhook :one
-- By the service. Nothing when it is switched off already, or has not been failing for so long (null: however long).
update webhook_endpoints w set is_active = false, disabled_reason = $2, updated_at = clock_timestamp()
where w.id = $1 and w.is_active and ($3::interval is null or w.failing_since <= now() - $3::interval)
returning {webhook_columns}

-- name: set_webhook_secret :exec
-- The first one, or a new one beside which the present one counts for so long.
select set_webhook_secret($1, $2, $3)

-- name: read_webhook_secrets :value
-- An array, the newest first.
select read_webhook_secrets($1)

-- name: delivery_columns :fragment
-- The payload is made of three of them, for the API as for the receiver.
l.id, l.webhook_endpoint_id as webhook_id, l.event_type, l.data, l.status, l.attempts, l.next_attempt_at,
l.last_attempt_at, l.response_status, l.response_body, l.response_time_ms, l.error, l.created_at, l.updated_at

-- name: get_delivery :one
-- One of the webhook's.
select {delivery_columns} from webhook_logs l where l.webhook_endpoint_id = $1 and l.id = $2

-- name: lock_delivery :one
-- The same, locked: an attempt that ends meanwhile is waited for.
select {delivery_columns} from webhook_logs l where l.webhook_endpoint_id = $1 and l.id = $2 for no key update

-- name: repeat_delivery :one
-- Due now, with what was answered before until it is answered again.
update webhook_logs l set status = 'pending', next_attempt_at = clock_timestamp(), updated_at = clock_timestamp()
where l.id = $1
returning {delivery_columns}

-- name: take_deliveries :many
-- A batch of what is due, leased: whoever takes it has until then, before it counts as lost and is taken again. Rows that
-- another has locked are left to him. The attempt is counted now, so that one which kills its worker counts as well.
update webhook_logs l set status = 'sending', attempts = l.attempts + 1, last_attempt_at = clock_timestamp(),
    next_attempt_at = clock_timestamp() + $3::interval, updated_at = clock_timestamp()
from (
    select id from webhook_logs where webhook_endpoint_id = $1 and next_attempt_at <= clock_timestamp()
    order by next_attempt_at limit $2 for no key update skip locked
) due
where l.id = due.id
returning {delivery_columns}

-- name: finish_attempt :exec
-- What came of an attempt, unless its lease was over and another has begun (the number tells); then the endpoint, whose
-- row is written only when it begins or ceases to fail. $8 is null when no attempt follows.
with finished as (
    update webhook_logs l set status = $3, response_status = $4, response_body = $5, response_time_ms = $6, error = $7,
        next_attempt_at = clock_timestamp() + $8::interval, updated_at = clock_timestamp()
    where l.id = $1 and l.attempts = $2 and l.status = 'sending'
    returning l.webhook_endpoint_id
)
update webhook_endpoints w set failing_since = case when $3 <> 'delivered' then clock_timestamp() end,
    updated_at = clock_timestamp()
from finished f
where w.id = f.webhook_endpoint_id and (w.failing_since is null) = ($3 <> 'delivered')

-- name: wake_webhooks :exec
-- A job for each endpoint that has none waiting.
select wake_webhooks($1)

-- name: list_due_webhooks :many
-- Over all organisations: where something is due and no job waits to send it.
select organization_id, webhook_id from list_due_webhooks($1)

-- name: purge_webhooks :value
-- Days; a bounded batch.
select purge_webhooks($1)
