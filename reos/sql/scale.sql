-- name: rolls :fragment
-- Numbers from 0 to 1 for row n, the same at each run with the same seed ($1); unlike random(), whatever the plan is.
cross join lateral (
    select (hashint8extended(n, $1::bigint) & 1048575) / 1048576::float8 as r0,
        (hashint8extended(n, $1 + 1) & 1048575) / 1048576::float8 as r1,
        (hashint8extended(n, $1 + 2) & 1048575) / 1048576::float8 as r2,
        (hashint8extended(n, $1 + 3) & 1048575) / 1048576::float8 as r3,
        (hashint8extended(n, $1 + 4) & 1048575) / 1048576::float8 as r4,
        (hashint8extended(n, $1 + 5) & 1048575) / 1048576::float8 as r5,
        (hashint8extended(n, $1 + 6) & 1048575) / 1048576::float8 as r6,
        (hashint8extended(n, $1 + 7) & 1048575) / 1048576::float8 as r7
) r

-- name: has_deal :fragment
-- Whether there is a deal about property n: of five in a row about two, so that there are 2 M / 5.
n * 2 / 5 > (n - 1) * 2 / 5

-- name: create_properties :exec
-- So many ($2), from the oldest of so many days ago ($3) to now; towns and kinds stand in their lists as often as they
-- weigh. None is sold yet.
with towns as materialized (
    select row_number() over () as number, count(*) over () as of, t.*
    from jsonb_to_recordset($4) t (city text, state text, zip_code text, latitude float8, longitude float8)
), kinds as materialized (
    select row_number() over () as number, count(*) over () as of, k.*
    from jsonb_to_recordset($5) k (property_type text, lowest integer, highest integer, fewest integer, most integer,
        smallest integer, largest integer, descriptions text[], features jsonb)
), drawn as (
    select n, r.*, 1 + floor(r0 * (select max(of) from towns)) as town, 1 + floor(r1 * (select max(of) from kinds)) as kind,
        $7::bigint[] as agents, $6::text[] as streets
    from generate_series(1, $2::bigint) n {rolls}
)
insert into properties (organization_id, address, city, state, zip_code, latitude, longitude, property_type, status,
    price, bedrooms, bathrooms, square_feet, lot_size, year_built, description, features, created_by, created_at,
    updated_at)
select current_organization_id(), 100 + d.n || ' ' || d.streets[1 + floor(d.r2 * cardinality(d.streets))::integer],
    t.city, t.state, t.zip_code, round((t.latitude + (d.r3 - 0.5) * 0.08)::numeric, 6),
    round((t.longitude + (d.r4 - 0.5) * 0.1)::numeric, 6), k.property_type,
    case when d.r5 < 0.05 and not ({has_deal}) then 'off_market' else 'available' end,
    -- There are more cheap ones than dear ones, and the large ones are dearer.
    round((k.lowest + (k.highest - k.lowest) * power((d.r3 + d.r6) / 2, 2.2))::numeric, -3),
    k.fewest + floor(d.r6 * (k.most - k.fewest + 1))::integer,
    case when k.most is not null then round((1 + 2.5 * d.r6) * 2) / 2 end,
    k.smallest + floor(d.r6 * (k.largest - k.smallest))::integer,
    case when k.property_type <> 'condo' then 2000 + floor(d.r7 * 120)::integer * 100 end,
    case when k.property_type <> 'land' then 1925 + floor(sqrt(d.r7) * 100)::integer end,
    replace(k.descriptions[1 + floor(d.r2 * cardinality(k.descriptions))::integer], '{town}', t.city),
    jsonb_build_array(k.features -> floor(d.r4 * jsonb_array_length(k.features))::integer),
    d.agents[1 + d.n % cardinality(d.agents)], a.at, a.at
from drawn d
join towns t on t.number = d.town
join kinds k on k.number = d.kind
cross join lateral (select now() - make_interval(secs => 86400 * $3::float8 * (1 - (d.n - d.r5) / $2))) a (at)
order by d.n

-- name: create_leads :exec
-- As many, as old. Who is behind a deal, of so large a part of them ($4), is converted.
with drawn as (
    select n, r.*, $5::text[] as first_names, $6::text[] as last_names, $7::text[] as sources, $8::text[] as statuses,
        $9::bigint[] as agents
    from generate_series(1, $2::bigint) n {rolls}
), chosen as (
    select d.*, d.first_names[1 + floor(d.r0 * cardinality(d.first_names))::integer] as first_name,
        d.last_names[1 + floor(d.r1 * cardinality(d.last_names))::integer] as last_name,
        case when {has_deal} and d.r2 < $4::float8 then 'converted'
            else d.statuses[1 + floor(d.r3 * cardinality(d.statuses))::integer] end as status,
        now() - make_interval(secs => 86400 * $3::float8 * (1 - (d.n - d.r4) / $2)) as at
    from drawn d
)
insert into leads (organization_id, first_name, last_name, email, phone, source, status, score, budget, timeline,
    assigned_to, created_by, created_at, updated_at, last_contacted_at)
select current_organization_id(), c.first_name, c.last_name,
    lower(replace(c.first_name || '.' || c.last_name, '''', '')) || '.' || c.n || '@example.com',
    '+1 512 ' || 200 + floor(c.r5 * 700)::integer || ' ' || lpad((c.n % 10000)::text, 4, '0'),
    c.sources[1 + floor(c.r6 * cardinality(c.sources))::integer], c.status,
    floor(case c.status when 'converted' then 70 + c.r7 * 31 when 'qualified' then 55 + c.r7 * 36
        when 'nurturing' then 35 + c.r7 * 36 when 'contacted' then 20 + c.r7 * 36 else c.r7 * 41 end)::integer,
    round((180000 + 1400000 * power(c.r7, 2))::numeric, -4),
    (array['as soon as possible', 'within three months', 'this year', 'next year'])[1 + floor(c.r5 * 4)::integer],
    c.agents[1 + c.n % cardinality(c.agents)], c.agents[1 + c.n % cardinality(c.agents)], c.at,
    coalesce(contacted.at, c.at), contacted.at
from chosen c
left join lateral (
    select c.at + least(now() - c.at, interval '45 days') * c.r5
) contacted (at) on c.status <> 'new'
order by c.n

-- name: create_deals :exec
-- One about two of five properties: those that are closed have been so for some time, the others are of the last weeks,
-- and what came in this month is at the beginning of its path ($4).
with drawn as (
    select p.*, r.*, $2::text[] as stages, $3::text[] as types
    from (
        select id, created_by, created_at, price, row_number() over (order by id) as n from properties
    ) p {rolls}
    where {has_deal}
), leads_by_number as (
    select id, status, row_number() over (order by id) as n from leads
), chosen as (
    select d.*, case when now() - d.created_at < interval '30 days' then ($4::text[])[1 + floor(d.r0 * 4)::integer]
            else d.stages[1 + floor(d.r0 * cardinality(d.stages))::integer] end as stage,
        d.types[1 + floor(d.r1 * cardinality(d.types))::integer] as deal_type
    from drawn d
), begun as (
    select c.*, c.stage in ('closed_won', 'closed_lost') as is_closed, c.deal_type in ('lease', 'rental') as is_renting,
        case when c.stage in ('closed_won', 'closed_lost')
            then c.created_at + least(now() - c.created_at, interval '50 days') * (0.05 + 0.5 * c.r2)
            else now() - least(now() - c.created_at, interval '90 days') * (0.1 + 0.85 * c.r2) end as began
    from chosen c
), ended as (
    select b.*, case when b.is_closed then b.began + least((now() - b.began) * 0.95, interval '80 days') * (0.3 + 0.7 * b.r3)
        when b.stage = ($4::text[])[1] then b.began else b.began + (now() - b.began) * (0.4 + 0.6 * b.r3) end as ended
    from begun b
)
insert into deals (organization_id, property_id, lead_id, deal_type, stage, value, commission_rate, probability,
    expected_close_date, assigned_to, created_by, closed_at, created_at, updated_at)
select current_organization_id(), e.id, l.id, e.deal_type, e.stage,
    round(e.price * case when e.is_renting then 0.06 else 0.95 + 0.06 * e.r4 end::numeric, -2),
    case when e.is_renting then 8.0 else (array[2.5, 3.0, 5.0, 6.0])[1 + floor(e.r5 * 4)::integer] end,
    ($5::jsonb ->> e.stage)::integer,
    case when e.is_closed then e.ended::date else current_date + 7 + floor(e.r6 * 84)::integer end,
    e.created_by, e.created_by, case when e.is_closed then e.ended end, e.began, e.ended
from ended e left join leads_by_number l on l.n = e.n and l.status = 'converted'
order by e.n

-- name: create_stage_changes :exec
-- Every stage on the path ($2) to that of the deal, at about equal distances; a deal is lost after one of the first four.
with numbered as (
    select d.id, d.stage, d.created_by, d.created_at, d.updated_at, row_number() over (order by d.id) as n,
        $2::text[] as path
    from deals d
), walked as (
    select d.*, r.r1, case when d.stage = 'closed_lost' then d.path[:1 + floor(r.r0 * 4)::integer] || d.stage
        else d.path[:array_position(d.path, d.stage)] end as stages
    from numbered d {rolls}
), steps as (
    select w.n, w.id, w.created_by, s.number, s.stage, w.created_at + (w.updated_at - w.created_at) * case
        when s.number = 1 then 0 when s.number = cardinality(w.stages) then 1
        else (s.number - 1.3 + 0.6 * w.r1) / (cardinality(w.stages) - 1) end as at
    from walked w cross join lateral unnest(w.stages) with ordinality s (stage, number)
)
insert into deal_stage_changes (organization_id, deal_id, old_stage, new_stage, changed_by, changed_at, duration_seconds)
select current_organization_id(), s.id, lag(s.stage) over deal, s.stage, s.created_by, s.at,
    floor(extract(epoch from s.at - lag(s.at) over deal))
from steps s window deal as (partition by s.n order by s.number)
order by s.n, s.number

-- name: create_transactions :exec
-- What is paid when a deal comes to a stage.
with payments (stage, types, transaction_type, share, description) as (values
    ('proposal', null::text[], 'expense', 0.0012, 'Advertisement'),
    ('contract', null, 'deposit', 0.01, 'Earnest money'),
    ('closed_won', array['flip'], 'purchase', 0.82, 'Bought from the owner'),
    ('closed_won', array['flip'], 'sale', 1, 'Sold to the buyer'),
    ('closed_won', array['lease', 'rental'], 'lease', 0.0833, 'First month'),
    ('closed_won', null, 'commission', null, 'Commission')
)
insert into transactions (organization_id, deal_id, transaction_type, amount, description, transaction_date, created_by,
    created_at, updated_at)
select current_organization_id(), d.id, p.transaction_type,
    round(d.value * coalesce(p.share, d.commission_rate / 100), 2), p.description, c.changed_at::date, d.created_by,
    c.changed_at, c.changed_at
from deal_stage_changes c
join deals d on d.id = c.deal_id
join payments p on p.stage = c.new_stage and (p.types is null or d.deal_type = any (p.types))
order by c.id

-- name: claim_properties :exec
-- A deal that holds its property, or was won, gives it its status.
update properties p set status_deal_id = d.id, updated_at = d.updated_at,
    status = case when d.stage <> 'closed_won' then 'under_contract' when d.deal_type in ('lease', 'rental') then 'rented'
        else 'sold' end
from deals d
where d.property_id = p.id and d.stage in ('contract', 'inspection', 'financing', 'closing', 'closed_won')

-- name: create_lead_activities :exec
-- How each began ($2, by source), and what made it contacted ($3).
with contacts as materialized (
    select row_number() over () as number, count(*) over () as of, c.*
    from jsonb_to_recordset($3) c (activity_type text, subject text, description text, outcome text)
), numbered as (
    select l.id, l.source, l.created_by, l.created_at, l.last_contacted_at, row_number() over (order by l.id) as n
    from leads l
)
insert into lead_activities (organization_id, lead_id, activity_type, subject, description, outcome, completed_at,
    created_by, created_at)
select current_organization_id(), a.id, a.activity_type, a.subject, a.description, a.outcome, a.completed_at,
    a.created_by, a.created_at
from (
    select l.id, 'note' as activity_type, null as subject, $2::jsonb ->> l.source as description, null as outcome,
        null::timestamptz as completed_at, l.created_by, l.created_at
    from numbered l
    union all
    select l.id, c.activity_type, c.subject, c.description, c.outcome, l.last_contacted_at, l.created_by,
        l.last_contacted_at
    from numbered l {rolls}
    join contacts c on c.number = 1 + floor(r.r0 * c.of)
    where l.last_contacted_at is not null
) a
order by a.created_at

-- name: create_property_activities :exec
-- One of every second property, of these kinds ($2).
with kinds as materialized (
    select row_number() over () as number, count(*) over () as of, k.*
    from jsonb_to_recordset($2) k (activity_type text, description text)
), numbered as (
    select p.id, p.created_by, p.created_at, p.updated_at, p.status, row_number() over (order by p.id) as n
    from properties p
)
insert into property_activities (organization_id, property_id, activity_type, description, created_by, created_at)
select current_organization_id(), p.id, k.activity_type, k.description, p.created_by, a.at
from numbered p {rolls}
join kinds k on k.number = 1 + floor(r.r0 * k.of)
cross join lateral (
    select p.created_at + (case when p.status in ('sold', 'rented') then p.updated_at else now() end - p.created_at) * r.r1
) a (at)
where p.n % 2 = 0
order by a.at

-- name: tidy :exec
-- As reos_owner and outside of a transaction: the planner knows the new rows, and indexes alone can answer.
vacuum (analyze) properties, leads, deals, deal_search_texts, deal_stage_changes, transactions, lead_activities,
    property_activities, users, organizations
