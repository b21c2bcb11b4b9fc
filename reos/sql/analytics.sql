-- name: time_range :fragment
-- The days from $1 to $2, either of which may be null, as moments in the organisation's time zone: from `since`, and
-- before `until`. Scalar subqueries of it are bounds that an index can be read between.
time_range as (
    select coalesce(day_begins($1::date, o.zone), '-infinity') as since,
        coalesce(day_begins($2::date + 1, o.zone), 'infinity') as until, (now() at time zone o.zone)::date as today
    from (
        select named_time_zone(coalesce(settings ->> 'timezone', 'UTC')) as zone
        from organizations where id = current_organization_id()
    ) o
)

-- name: in_range :fragment
created_at >= (select since from time_range) and created_at < (select until from time_range)

-- name: get_property_analytics :one
-- One scan, whose rows are counted along each enumeration, by city, and all together. `grouping` tells which: its bits
-- are the columns that a group is not by.
with {time_range}, counted as (
    select grouping(property_type, status, city) as kind, property_type, status, city, count(*) as properties,
        count(price) as prices, sum(price) as value
    from properties where deleted_at is null and {in_range}
    group by grouping sets ((property_type), (status), (city), ())
)
select t.properties as total_properties,
    (select coalesce(jsonb_object_agg(property_type, properties), '{}') from counted where kind = 3) as by_type,
    (select coalesce(jsonb_object_agg(status, properties), '{}') from counted where kind = 5) as by_status,
    coalesce(t.value / nullif(t.prices, 0), 0)::numeric(24, 2) as avg_price,
    coalesce(t.value, 0)::numeric(24, 2) as total_value,
    (
        select coalesce(jsonb_agg(jsonb_build_object('city', city, 'count', properties)), '[]')
        from (
            select city, properties from counted where kind = 6 order by properties desc, city collate "C" limit 10
        ) most
    ) as cities
from counted t where t.kind = 7

-- name: get_lead_analytics :one
-- One scan, grouped by both enumerations; and a short stretch of the same index for the newest, whatever the range.
with {time_range}, counted as (
    select status, source, count(*) as leads, sum(score) as score
    from leads where deleted_at is null and {in_range} group by status, source
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
    coalesce(round(100.0 * t.converted / nullif(t.leads, 0), 2), 0)::float8 as conversion_rate,
    (select count(*) from leads where deleted_at is null and created_at >= now() - interval '30 days')
        as new_leads_last_30_days
from totals t

-- name: get_deal_analytics :one
-- One scan of the deals, grouped by both enumerations; and their stays in the open stages, each from one change to the
-- next, or until now.
with {time_range}, scoped as materialized (
    select id, stage, deal_type, value, probability, created_at
    from deals where deleted_at is null and {in_range}
), counted as (
    select stage, deal_type, count(*) as deals, sum(value) as value, sum(value * probability) / 100 as expected
    from scoped group by stage, deal_type
), totals as (
    select coalesce(sum(deals), 0)::bigint as deals, coalesce(sum(value), 0) as value,
        coalesce(sum(deals) filter (where stage = 'closed_won'), 0) as won,
        coalesce(sum(deals) filter (where stage in ('closed_won', 'closed_lost')), 0) as closed,
        coalesce(sum(expected) filter (where stage not in ('closed_won', 'closed_lost')), 0) as expected
    from counted
), stays as (
    select c.new_stage as stage,
        coalesce(lead(c.changed_at) over (partition by c.deal_id order by c.id), now()) - c.changed_at as length
    from scoped d
    join deal_stage_changes c on c.organization_id = current_organization_id() and c.deal_id = d.id
), averages as (
    select stage, extract(epoch from sum(length)) / 86400 as days, count(*) as stays
    from stays where stage not in ('closed_won', 'closed_lost') group by stage
)
select t.deals as total_deals,
    (select coalesce(jsonb_object_agg(s.stage, s.deals), '{}')
        from (select stage, sum(deals) as deals from counted group by stage) s) as by_stage,
    (select coalesce(jsonb_object_agg(s.deal_type, s.deals), '{}')
        from (select deal_type, sum(deals) as deals from counted group by deal_type) s) as by_type,
    t.value::numeric(24, 2) as total_value,
    coalesce(t.value / nullif(t.deals, 0), 0)::numeric(24, 2) as avg_value,
    coalesce(round(100.0 * t.won / nullif(t.closed, 0), 2), 0)::float8 as win_rate,
    t.expected::numeric(24, 2) as expected_revenue,
    (select coalesce(round(sum(days) / nullif(sum(stays), 0), 2), 0)::float8 from averages)
        as avg_days_in_stage,
    (select coalesce(jsonb_object_agg(stage, round(days / stays, 2)), '{}') from averages)
        as avg_days_by_stage
from totals t

-- name: get_campaign_analytics :one
-- One scan: the counts are kept with each campaign.
with {time_range}, totals as (
    select count(*) as campaigns, count(*) filter (where status in ('scheduled', 'in_progress')) as active,
        coalesce(sum(sent_count), 0) as sent, coalesce(sum(delivered_count), 0) as delivered,
        coalesce(sum(opened_count), 0) as opened, coalesce(sum(clicked_count), 0) as clicked
    from campaigns where deleted_at is null and {in_range}
)
select campaigns as total_campaigns, active as active_campaigns, sent as total_sent, delivered as total_delivered,
    opened as total_opened,
    coalesce(round(100.0 * delivered / nullif(sent, 0), 2), 0)::float8 as delivery_rate,
    coalesce(round(100.0 * opened / nullif(delivered, 0), 2), 0)::float8 as open_rate,
    coalesce(round(100.0 * clicked / nullif(opened, 0), 2), 0)::float8 as click_rate
from totals

-- name: get_revenue_analytics :one
-- One scan of the transactions of the range, grouped by month and type of deal. Months without revenue are filled in,
-- but not those of more than a hundred years, which somebody has mistyped. Who names the first or the last day of the
-- calendar means no limit, so that months are filled in from the first, or to the last, that has revenue.
with booked as (
    select date_trunc('month', t.transaction_date::timestamp)::date as month, d.deal_type,
        t.transaction_type = 'expense' as is_expense, sum(t.amount) as amount
    from transactions t
    join deals d on d.organization_id = t.organization_id and d.id = t.deal_id and d.deleted_at is null
    where t.transaction_type in ('sale', 'commission', 'income', 'expense')
        and t.transaction_date between coalesce($1::date, '-infinity') and coalesce($2::date, 'infinity')
    group by 1, 2, 3
), totals as (
    select coalesce(sum(amount) filter (where not is_expense), 0) as revenue,
        coalesce(sum(amount) filter (where is_expense), 0) as expenses,
        coalesce(date_trunc('month', nullif($1::date, '0001-01-01')::timestamp),
            min(month) filter (where not is_expense)) as first_month,
        coalesce(date_trunc('month', nullif($2::date, '9999-12-31')::timestamp),
            max(month) filter (where not is_expense)) as last_month
    from booked
), months as (
    select month, sum(amount) as revenue
    from (
        select month, amount from booked where not is_expense
        union all
        select m::date, 0 from totals t, generate_series(t.first_month, t.last_month, interval '1 month') m
        where t.last_month < t.first_month + interval '100 years'
    ) all_months
    group by month
)
select t.revenue::numeric(24, 2) as total_revenue, t.expenses::numeric(24, 2) as total_expenses,
    (t.revenue - t.expenses)::numeric(24, 2) as net_revenue,
    (
        select coalesce(jsonb_agg(jsonb_build_object('month', to_char(month, 'YYYY-MM'),
            'revenue', revenue::numeric(24, 2)::text) order by month), '[]')
        from months
    ) as revenue_by_month,
    (
        select coalesce(jsonb_object_agg(deal_type, revenue::numeric(24, 2)::text), '{}')
        from (select deal_type, sum(amount) as revenue from booked where not is_expense group by deal_type) by_type
    ) as revenue_by_deal_type
from totals t

-- name: count_everything :one
-- Everything in one round trip: one grouped scan of each table. What happened lately, and this month's revenue, are
-- short stretches of indexes by time; they do not depend on the range.
with {time_range}, property_counts as (
    select status, count(*) as properties, sum(price) as value
    from properties where deleted_at is null and {in_range} group by status
), lead_counts as (
    select status, count(*) as leads from leads where deleted_at is null and {in_range} group by status
), deal_counts as (
    select stage, count(*) as deals, sum(value) as value from deals where deleted_at is null and {in_range} group by stage
), activity_counts as (
    select count(*) as activities
    from property_activities a join properties p on p.organization_id = a.organization_id and p.id = a.property_id
    where p.deleted_at is null and a.created_at >= now() - interval '7 days'
    union all
    select count(*)
    from lead_activities a join leads l on l.organization_id = a.organization_id and l.id = a.lead_id
    where l.deleted_at is null and a.created_at >= now() - interval '7 days'
    union all
    select count(*)
    from deal_stage_changes c join deals d on d.organization_id = c.organization_id and d.id = c.deal_id
    where d.deleted_at is null and c.old_stage is not null and c.changed_at >= now() - interval '7 days'
)
select coalesce((select sum(properties) from property_counts), 0)::bigint as total_properties,
    coalesce((select sum(leads) from lead_counts), 0)::bigint as total_leads,
    coalesce((select sum(deals) from deal_counts), 0)::bigint as total_deals,
    coalesce((select sum(value) from deal_counts), 0)::numeric(24, 2) as total_deal_value,
    (
        select count(*) from campaigns
        where deleted_at is null and status in ('scheduled', 'in_progress') and {in_range}
    ) as active_campaigns,
    (select coalesce(jsonb_object_agg(status, properties), '{}') from property_counts) as properties_by_status,
    (select coalesce(jsonb_object_agg(status, leads), '{}') from lead_counts) as leads_by_status,
    (select coalesce(jsonb_object_agg(stage, deals), '{}') from deal_counts) as deals_by_stage,
    (select sum(activities) from activity_counts)::bigint as recent_activity_count,
    coalesce((select sum(value) from property_counts), 0)::numeric(24, 2) as total_property_value,
    (
        select coalesce(sum(t.amount), 0)
        from transactions t
        join deals d on d.organization_id = t.organization_id and d.id = t.deal_id and d.deleted_at is null
        where t.transaction_type = 'commission'
            and t.transaction_date between coalesce($1::date, '-infinity') and coalesce($2::date, 'infinity')
    )::numeric(24, 2) as total_commissions,
    (
        select coalesce(sum(t.amount), 0)
        from transactions t
        join deals d on d.organization_id = t.organization_id and d.id = t.deal_id and d.deleted_at is null
        where t.transaction_type in ('sale', 'commission', 'income')
            and t.transaction_date >= (select date_trunc('month', today::timestamp)::date from time_range)
            and t.transaction_date < (select (date_trunc('month', today::timestamp) + interval '1 month')::date
                from time_range)
    )::numeric(24, 2) as this_month
