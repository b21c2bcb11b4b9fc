-- name: lock_sending :one
-- What a job has to know before it does anything, locked before any recipient: whoever changes the campaign waits, or
-- has been seen.
select c.status, c.job_number, c.campaign_type, c.subject, c.content, c.created_by, c.scheduled_at,
    c.deleted_at is not null as is_deleted, o.is_active as is_organization_active, o.name as organization_name,
    coalesce(o.settings ->> 'timezone', 'UTC') as time_zone
from campaigns c join organizations o on o.id = c.organization_id
where c.id = $1 for no key update of c

-- name: give_up_taken :exec
-- What this job had in its hands when its worker died, and what nobody can have in hands any more: it may have been
-- handed over, so it is never sent again by itself.
update campaign_recipients set status = 'unknown', updated_at = clock_timestamp(),
    error_message = 'The service was stopped while the message was handed over.'
where campaign_id = $1 and status = 'sending'
    and (taken_by = $2 or sending_at < clock_timestamp() - interval '10 minutes')

-- name: has_got_on :value
-- Whether a dead attempt of this job had brought anything to an end.
select exists (select from campaign_recipients where campaign_id = $1 and status in ('sent', 'failed') and taken_by = $2)

-- name: list_due :many
-- The next recipients with their merge fields, locked; what another job has locked is passed over.
select r.id, r.address, r.attempts, l.deleted_at is not null as is_gone,
    exists (select from suppressions s where s.address_key = r.address_key) as is_suppressed,
    l.metadata ->> 'timezone' as time_zone, l.first_name, l.last_name, l.email, l.company,
    (select u.first_name || ' ' || u.last_name from users u where u.id = coalesce(l.assigned_to, $3)) as agent_name,
    (select p.address from deals d
        join properties p on p.organization_id = d.organization_id and p.id = d.property_id and p.deleted_at is null
        where d.lead_id = l.id and d.deleted_at is null order by d.id desc limit 1) as property_address
from campaign_recipients r join leads l on l.organization_id = r.organization_id and l.id = r.lead_id
where r.campaign_id = $1 and r.status = 'pending'
    and (r.next_attempt_at is null or r.next_attempt_at <= clock_timestamp())
order by r.id limit $2
for update of r skip locked

-- name: take_recipients :exec
-- Each with its fixed Message-ID; this commits before anything is handed over.
update campaign_recipients r set status = 'sending', attempts = r.attempts + 1, message_id = t.message_id,
    taken_by = $3, sending_at = clock_timestamp(), updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[]) t (id, message_id)
where r.id = t.id

-- name: suppress_recipients :exec
-- Whose address was suppressed, or whose lead was deleted, after they were chosen.
update campaign_recipients r set status = 'suppressed', error_message = t.reason, updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[]) t (id, reason)
where r.id = t.id

-- name: postpone_recipients :exec
-- To when it is day where they are.
update campaign_recipients r set next_attempt_at = t.at, updated_at = clock_timestamp()
from unnest($1::bigint[], $2::timestamptz[]) t (id, at)
where r.id = t.id

-- name: record_outcomes :exec
-- Only where the recipient is still in this attempt of this job ($2), so that it can be said twice; also over the
-- `unknown` of a job that took this one for dead. What was not handed over goes back, unless the campaign has been
-- cancelled or completed meanwhile: $3 is its state then. A try that was none does not count.
update campaign_recipients r set
    status = case when o.outcome in ('sent', 'failed', 'unknown') then o.outcome else $3 end,
    attempts = r.attempts - case when o.outcome = 'released' then 1 else 0 end,
    sent_at = case when o.outcome = 'sent' then clock_timestamp() end,
    next_attempt_at = case when o.outcome = 'retry' and $3 = 'pending' then clock_timestamp() + make_interval(secs => o.wait) end,
    message_id = coalesce(o.message_id, r.message_id),
    error_message = case when o.outcome = 'released' and $3 = 'failed' then 'The campaign had come to its end before.'
        else o.error end,
    updated_at = clock_timestamp()
from jsonb_to_recordset($1::jsonb) o (id bigint, attempt integer, outcome text, error text, wait double precision,
    message_id text)
where r.id = o.id and r.taken_by = $2 and r.attempts = o.attempt and r.status in ('sending', 'unknown')

-- name: count_tries :one
-- How the campaign does since it was started or resumed; its counters are those of the recipients' rows already.
update campaigns set tried_since_start = tried_since_start + $2, failed_since_start = failed_since_start + $3
where id = $1
returning tried_since_start, failed_since_start, sent_count, failed_count, total_recipients

-- name: get_rest :one
-- What is left to do, and when.
select count(*) filter (where r.status = 'pending') as pending, count(*) filter (where r.status = 'sending') as sending,
    min(coalesce(r.next_attempt_at, clock_timestamp())) filter (where r.status = 'pending') as next_at
from campaign_recipients r where r.campaign_id = $1 and r.status in ('pending', 'sending')

-- name: reserve_pace :value
-- Room for so many messages ($1), so many a second ($2), of all campaigns of the organisation; in how many seconds the
-- first may go out.
insert into sending_paces as p (organization_id, next_at)
values (current_organization_id(), clock_timestamp() + make_interval(secs => $1::bigint / $2::double precision))
on conflict (organization_id) do update
    set next_at = greatest(p.next_at, clock_timestamp()) + make_interval(secs => $1::bigint / $2::double precision)
returning greatest(0, extract(epoch from p.next_at - clock_timestamp()) - $1::bigint / $2::double precision)::float8

-- name: overtake :value
-- The number of the job that goes on after this one; null when another has overtaken it meanwhile.
update campaigns set job_number = job_number + 1
where id = $1 and job_number = $2 and status = 'in_progress' and deleted_at is null
returning job_number

-- name: list_for_export :many
-- A batch of recipients with their merge fields, in the order of their ids after $2; without those who were deleted, or
-- have unsubscribed, since they were frozen.
select r.id, r.lead_id, l.first_name, l.last_name, l.email, l.phone, l.company,
    (select u.first_name || ' ' || u.last_name from users u where u.id = coalesce(l.assigned_to, $4)) as agent_name,
    (select p.address from deals d
        join properties p on p.organization_id = d.organization_id and p.id = d.property_id and p.deleted_at is null
        where d.lead_id = l.id and d.deleted_at is null order by d.id desc limit 1) as property_address
from campaign_recipients r join leads l on l.organization_id = r.organization_id and l.id = r.lead_id
where r.campaign_id = $1 and r.id > $2 and r.status = 'pending' and l.deleted_at is null and not refuses_letters(l)
order by r.id limit $3
