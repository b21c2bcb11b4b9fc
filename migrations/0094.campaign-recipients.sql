-- Whom a campaign goes to, frozen when it is sent, one row for each address; and the campaign's counters, which a
-- trigger keeps equal to the rows, whoever changes them.
set local lock_timeout = '5s';

create table campaign_recipients (
    organization_id bigint not null,
    id bigint generated always as identity,
    campaign_id bigint not null,
    lead_id bigint not null,
    address text check (char_length(address) <= 255), -- an email address or a phone number; null: there is none
    address_key text not null, -- what is the same for two spellings of an address; the lead where there is none
    status text not null default 'pending' check (status in ('pending', 'sending', 'sent', 'failed', 'bounced',
        'suppressed', 'unknown', 'cancelled')),
    error_message text check (char_length(error_message) <= 500),
    attempts integer not null default 0 check (attempts >= 0),
    next_attempt_at timestamptz, -- null: at once
    message_id text check (char_length(message_id) <= 300), -- of the mail, or what the SMS provider calls the message
    sending_at timestamptz,
    sent_at timestamptz,
    bounced_at timestamptz,
    opened_at timestamptz,
    clicked_at timestamptz,
    unsubscribed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (organization_id, id),
    constraint campaign_recipients_address_key unique (organization_id, campaign_id, address_key),
    foreign key (organization_id, campaign_id) references campaigns (organization_id, id) on delete cascade,
    foreign key (organization_id, lead_id) references leads (organization_id, id) on delete cascade
);
create index campaign_recipients_by_id on campaign_recipients (organization_id, campaign_id, id);
create index campaign_recipients_by_status on campaign_recipients (organization_id, campaign_id, status, id);
create index campaign_recipients_by_lead on campaign_recipients (organization_id, lead_id);

alter table campaign_recipients enable row level security, force row level security;
create policy tenant on campaign_recipients to reos_app using (organization_id = (select current_organization_id()));
create policy owner on campaign_recipients to reos_owner using (true);
grant select, insert, update (status, error_message, attempts, next_attempt_at, message_id, sending_at, sent_at,
    bounced_at, opened_at, clicked_at, unsubscribed_at, updated_at) on campaign_recipients to reos_app;

-- By what a statement changes the counters of each campaign; nothing is written where that is nothing.
create function count_campaign_recipients() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
    old_rows campaign_recipients[] := '{}';
begin
    if tg_op = 'UPDATE' then
        select coalesce(array_agg(o), '{}') into old_rows from old_recipients o;
    end if;
    update campaigns c set
        total_recipients = c.total_recipients + d.total,
        sent_count = c.sent_count + d.sent,
        delivered_count = c.delivered_count + d.delivered,
        bounced_count = c.bounced_count + d.bounced,
        failed_count = c.failed_count + d.failed,
        suppressed_count = c.suppressed_count + d.suppressed,
        unknown_count = c.unknown_count + d.unknown,
        opened_count = c.opened_count + d.opened,
        clicked_count = c.clicked_count + d.clicked,
        unsubscribed_count = c.unsubscribed_count + d.unsubscribed,
        updated_at = clock_timestamp()
    from (
        select r.organization_id, r.campaign_id, sum(r.sign) as total,
            coalesce(sum(r.sign) filter (where r.status in ('sent', 'bounced')), 0) as sent,
            coalesce(sum(r.sign) filter (where r.status = 'sent'), 0) as delivered,
            coalesce(sum(r.sign) filter (where r.status = 'bounced'), 0) as bounced,
            coalesce(sum(r.sign) filter (where r.status = 'failed'), 0) as failed,
            coalesce(sum(r.sign) filter (where r.status = 'suppressed'), 0) as suppressed,
            coalesce(sum(r.sign) filter (where r.status = 'unknown'), 0) as unknown,
            coalesce(sum(r.sign) filter (where r.opened_at is not null), 0) as opened,
            coalesce(sum(r.sign) filter (where r.clicked_at is not null), 0) as clicked,
            coalesce(sum(r.sign) filter (where r.unsubscribed_at is not null), 0) as unsubscribed
        from (
            select organization_id, campaign_id, status, opened_at, clicked_at, unsubscribed_at, 1 as sign
            from new_recipients
            union all
            select organization_id, campaign_id, status, opened_at, clicked_at, unsubscribed_at, -1
            from unnest(old_rows)
        ) r
        group by r.organization_id, r.campaign_id
    ) d
    where c.organization_id = d.organization_id and c.id = d.campaign_id
        and (d.total, d.sent, d.delivered, d.bounced, d.failed, d.suppressed, d.unknown, d.opened, d.clicked,
            d.unsubscribed) is distinct from (0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return null;
end $$;
revoke all on function count_campaign_recipients() from public;

create trigger count_new_recipients after insert on campaign_recipients
    referencing new table as new_recipients for each statement execute function count_campaign_recipients();
create trigger count_changed_recipients after update on campaign_recipients
    referencing old table as old_recipients new table as new_recipients
    for each statement execute function count_campaign_recipients();
