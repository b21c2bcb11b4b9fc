-- name: campaign_of_recipient :fragment
-- The campaign is locked before its recipient, as by the job that sends it: its counters follow the recipient.
c.id from campaign_recipients r join campaigns c on c.organization_id = r.organization_id and c.id = r.campaign_id
where r.id = $1

-- name: record_open :exec
-- The first time counts; mail programs ask for the picture whenever they like.
with campaign as materialized (
    select {campaign_of_recipient} and r.opened_at is null for no key update of c
)
update campaign_recipients r set opened_at = clock_timestamp(), updated_at = clock_timestamp()
from campaign c where r.id = $1 and r.campaign_id = c.id and r.opened_at is null

-- name: record_click :exec
-- Who has clicked has opened, also where pictures are not shown.
with campaign as materialized (
    select {campaign_of_recipient} and r.clicked_at is null for no key update of c
)
update campaign_recipients r set clicked_at = clock_timestamp(),
    opened_at = coalesce(r.opened_at, clock_timestamp()), updated_at = clock_timestamp()
from campaign c where r.id = $1 and r.campaign_id = c.id and r.clicked_at is null

-- name: get_unsubscriber :one
-- Whose page it is. A letter has no address of its own: there it is the lead's.
select a.address, o.name as organization_name, exists (select from suppressions s where s.address_key
    = case when a.address like '%@%' then address_key(a.address, null) else address_key(null, a.address) end
    and s.reason is distinct from 'bounced') as is_suppressed
from campaign_recipients r
join leads l on l.organization_id = r.organization_id and l.id = r.lead_id
join organizations o on o.id = r.organization_id
cross join lateral (select coalesce(r.address, l.email, l.phone) as address) a
where r.id = $1

-- name: unsubscribe :one
-- The address is suppressed from now on. It may be so already, and then only the time is kept; but that mails to it
-- bounce, which keeps no letter from going out, counts less than that somebody wants no more.
with campaign as materialized (
    select {campaign_of_recipient} for no key update of c
), unsubscribed as (
    update campaign_recipients r set unsubscribed_at = coalesce(r.unsubscribed_at, clock_timestamp()),
        updated_at = case when r.unsubscribed_at is null then clock_timestamp() else r.updated_at end
    from campaign c, leads l
    where r.id = $1 and r.campaign_id = c.id and l.organization_id = r.organization_id and l.id = r.lead_id
    returning coalesce(r.address, l.email, l.phone) as address
), suppressed as (
    insert into suppressions (organization_id, email, phone, reason)
    select current_organization_id(), case when u.address like '%@%' then u.address end,
        case when u.address not like '%@%' then u.address end, 'unsubscribed'
    from unsubscribed u where u.address like '%@%' or u.address ~ '[0-9]'
    on conflict (organization_id, address_key) do update set reason = excluded.reason
        where suppressions.reason = 'bounced'
    returning id
)
select s.id as suppression_id, exists (select from suppressions b where b.id = s.id) as has_bounced
from unsubscribed left join suppressed s on true

-- name: record_bounces :value
-- What a provider has reported: a bounce is the end of a mail that the server had taken, also of one whose outcome was
-- not known; a complaint is an unsubscription, which counts more. Neither address is written to again. How many mails
-- were found.
with reported as (
    select b.id, b.kind, b.reason from jsonb_to_recordset($1::jsonb) b (id bigint, kind text, reason text)
), campaign as materialized (
    select c.id from campaigns c
    where c.id in (select r.campaign_id from reported b join campaign_recipients r on r.id = b.id)
    order by c.id
    for no key update of c
), changed as (
    update campaign_recipients r set
        status = case when b.kind = 'bounce' and r.status in ('sending', 'sent', 'unknown') then 'bounced'
            else r.status end,
        sent_at = case when b.kind = 'bounce' then coalesce(r.sent_at, r.sending_at) else r.sent_at end,
        bounced_at = case when b.kind = 'bounce' then coalesce(r.bounced_at, clock_timestamp()) else r.bounced_at end,
        error_message = case when b.kind = 'bounce' then coalesce(b.reason, 'The mail has bounced.')
            else r.error_message end,
        unsubscribed_at = case when b.kind = 'complaint' then coalesce(r.unsubscribed_at, clock_timestamp())
            else r.unsubscribed_at end,
        updated_at = clock_timestamp()
    from reported b, campaign c
    where r.id = b.id and r.campaign_id = c.id and r.sending_at is not null
    returning r.address, b.kind
), suppressed as (
    insert into suppressions (organization_id, email, reason)
    select distinct on (address_key(c.address, null)) current_organization_id(), c.address,
        case c.kind when 'bounce' then 'bounced' else 'complained' end
    from changed c where c.address like '%@%'
    order by address_key(c.address, null), c.kind = 'bounce'
    on conflict (organization_id, address_key) do update set reason = excluded.reason
        where suppressions.reason = 'bounced' and excluded.reason <> 'bounced'
)
select count(*) from changed
