-- name: recipient_columns :fragment
-- The items of the list.
r.id, r.campaign_id, r.lead_id, r.address, r.status, r.error_message, r.attempts, r.next_attempt_at, r.sent_at,
r.opened_at, r.clicked_at, r.bounced_at, r.unsubscribed_at, r.created_at, r.updated_at

-- name: list_known_leads :many
-- Which of the ids that a client named are leads.
select id from leads where id = any($1::bigint[]) and deleted_at is null

-- name: freeze_recipients :value
-- One row for each address of the leads ($2; null: all of them), in whatever spelling, that of the oldest lead. Who has
-- no address, or one that is suppressed, is marked as such at once. A letter needs none: there it is one row a lead.
with chosen as (
    select distinct on (k.key) l.id as lead_id, k.address, k.key, k.needs_address,
        not k.needs_address and refuses_letters(l) as refuses
    from leads l
    cross join lateral (
        select case $3 when 'email' then l.email when 'sms' then l.phone end as address,
            case $3 when 'email' then address_key(l.email, null) when 'sms' then address_key(null, l.phone) end
                as address_key,
            $3 in ('email', 'sms') as needs_address
    ) a
    cross join lateral (
        select case when a.address_key is not null then a.address end as address, a.needs_address,
            coalesce(a.address_key, 'lead ' || l.id) as key
    ) k
    where l.deleted_at is null and ($2::bigint[] is null or l.id = any($2))
    order by k.key, l.id
), frozen as (
    insert into campaign_recipients (organization_id, campaign_id, lead_id, address, address_key, status,
        error_message)
    select current_organization_id(), $1, c.lead_id, c.address, c.key,
        case when c.refuses or c.needs_address and (c.address is null or s.id is not null) then 'suppressed'
            else 'pending' end,
        case when c.refuses then 'The lead has unsubscribed, or is suppressed.'
            when c.needs_address and c.address is null then 'The lead has no address.'
            when s.id is not null then 'The address is suppressed.' end
    from chosen c
    left join suppressions s on s.address_key = c.key
    order by c.lead_id
    returning 1
)
select count(*) from frozen

-- name: cancel_recipients :exec
-- What has not been taken for sending never will be.
update campaign_recipients set status = 'cancelled', next_attempt_at = null, updated_at = clock_timestamp()
where campaign_id = $1 and status = 'pending'
