-- name: list_present :many
-- Which of the addresses somebody logs in with, before a tenant is known.
select email from unnest($1::text[]) as email, read_login(email, '', interval '0') as login
where login.user_id is not null and login.is_active

-- name: lock_seeding :exec
-- Of two seeders the second waits, and then finds everything there.
select pg_advisory_xact_lock(7235926018)

-- name: set_organization_settings :exec
-- Registration takes a name alone.
update organizations set settings = $1, updated_at = clock_timestamp() where id = current_organization_id()

-- name: create_users :many
-- Verified, since nobody could read the mails. The ids come back with the addresses to be told apart.
insert into users (organization_id, email, first_name, last_name, phone, is_verified)
select current_organization_id(), u.email, u.first_name, u.last_name, u.phone, true
from jsonb_to_recordset($1) as u (email text, first_name text, last_name text, phone text)
returning id, email

-- name: create_logins :exec
-- The app role reaches neither the hashes nor the addresses of other organisations.
select create_login(l.user_id, l.email_key, l.password_hash)
from jsonb_to_recordset($1) as l (user_id bigint, email_key text, password_hash text)

-- name: grant_roles :exec
-- By the names of the system roles, which every organisation has.
insert into user_roles (organization_id, user_id, role_id)
select r.organization_id, g.user_id, r.id
from jsonb_to_recordset($1) as g (user_id bigint, role text) join roles r on r.name = g.role

-- name: create_properties :many
-- With times of their own, so that the lists have something to sort by.
insert into properties (organization_id, address, city, state, zip_code, latitude, longitude, property_type, status,
    price, bedrooms, bathrooms, square_feet, lot_size, year_built, description, features, created_by, created_at,
    updated_at)
select current_organization_id(), r.address, r.city, r.state, r.zip_code, r.latitude, r.longitude, r.property_type,
    r.status, r.price, r.bedrooms, r.bathrooms, r.square_feet, r.lot_size, r.year_built, r.description, r.features,
    r.created_by, r.created_at, r.updated_at
from jsonb_populate_recordset(null::properties, $1) r
returning id, address

-- name: create_images :exec
-- The files are of the same statement, so there is none that no picture uses.
with given as (
    select * from jsonb_to_recordset($1) as g (property_id bigint, title text, "order" integer, is_primary boolean,
        created_by bigint, created_at timestamptz, storage_key text, size_bytes bigint, thumbnail_key text,
        thumbnail_bytes bigint)
),
files as (
    insert into stored_files (organization_id, storage_key, content_type, size_bytes, is_public, is_pending)
    select current_organization_id(), key, 'image/jpeg', size, true, false
    from given, lateral (values (storage_key, size_bytes), (thumbnail_key, thumbnail_bytes)) as file (key, size)
    returning id, storage_key
)
insert into property_images (organization_id, property_id, file_id, thumbnail_file_id, title, "order", is_primary,
    created_by, created_at)
select current_organization_id(), g.property_id, f.id, t.id, g.title, g."order", g.is_primary, g.created_by,
    g.created_at
from given g
join files f on f.storage_key = g.storage_key
join files t on t.storage_key = g.thumbnail_key

-- name: create_valuations :exec
-- The records have the names of the columns, so they need no list of their own.
insert into property_valuations (organization_id, property_id, value, valuation_date, source, created_by, created_at)
select current_organization_id(), r.property_id, r.value, r.valuation_date, r.source, r.created_by, r.created_at
from jsonb_populate_recordset(null::property_valuations, $1) r

-- name: create_notes :exec
-- As create_valuations.
insert into property_notes (organization_id, property_id, content, created_by, created_at)
select current_organization_id(), r.property_id, r.content, r.created_by, r.created_at
from jsonb_populate_recordset(null::property_notes, $1) r

-- name: create_activities :exec
-- As create_valuations.
insert into property_activities (organization_id, property_id, activity_type, description, created_by, created_at)
select current_organization_id(), r.property_id, r.activity_type, r.description, r.created_by, r.created_at
from jsonb_populate_recordset(null::property_activities, $1) r

-- name: create_leads :many
-- The ids come back with the addresses to be told apart.
insert into leads (organization_id, first_name, last_name, email, phone, company, source, status, score, budget,
    timeline, notes, assigned_to, created_by, created_at, updated_at, last_contacted_at)
select current_organization_id(), r.first_name, r.last_name, r.email, r.phone, r.company, r.source, r.status, r.score,
    r.budget, r.timeline, r.notes, r.assigned_to, r.created_by, r.created_at, r.updated_at, r.last_contacted_at
from jsonb_populate_recordset(null::leads, $1) r
returning id, email

-- name: create_lead_activities :exec
-- As create_valuations.
insert into lead_activities (organization_id, lead_id, activity_type, subject, description, outcome, scheduled_at,
    completed_at, created_by, created_at)
select current_organization_id(), r.lead_id, r.activity_type, r.subject, r.description, r.outcome, r.scheduled_at,
    r.completed_at, r.created_by, r.created_at
from jsonb_populate_recordset(null::lead_activities, $1) r

-- name: create_deals :many
-- A property may have several deals, begun at different times.
insert into deals (organization_id, property_id, lead_id, deal_type, stage, value, commission_rate, probability,
    expected_close_date, assigned_to, notes, created_by, closed_at, created_at, updated_at)
select current_organization_id(), r.property_id, r.lead_id, r.deal_type, r.stage, r.value, r.commission_rate,
    r.probability, r.expected_close_date, r.assigned_to, r.notes, r.created_by, r.closed_at, r.created_at, r.updated_at
from jsonb_populate_recordset(null::deals, $1) r
returning id, property_id, created_at

-- name: claim_properties :exec
-- Which deal gave a property its status: the one that holds it, or was won.
update properties p set status_deal_id = d.id, updated_at = d.updated_at
from deals d
where d.organization_id = p.organization_id and d.property_id = p.id
    and d.stage in ('contract', 'inspection', 'financing', 'closing', 'closed_won')

-- name: create_stage_changes :exec
-- As create_valuations.
insert into deal_stage_changes (organization_id, deal_id, old_stage, new_stage, changed_by, changed_at,
    duration_seconds)
select current_organization_id(), r.deal_id, r.old_stage, r.new_stage, r.changed_by, r.changed_at, r.duration_seconds
from jsonb_populate_recordset(null::deal_stage_changes, $1) r

-- name: create_transactions :exec
-- As create_valuations.
insert into transactions (organization_id, deal_id, transaction_type, amount, description, transaction_date,
    metadata, created_by, created_at, updated_at)
select current_organization_id(), r.deal_id, r.transaction_type, r.amount, r.description, r.transaction_date, '{}',
    r.created_by, r.created_at, r.updated_at
from jsonb_populate_recordset(null::transactions, $1) r

-- name: create_portfolio :exec
-- With the properties at these addresses.
with made as (
    insert into portfolios (organization_id, name, description, created_by)
    values (current_organization_id(), $1, $2, $3)
    returning organization_id, id
)
insert into portfolio_properties (organization_id, portfolio_id, property_id)
select m.organization_id, m.id, p.id from made m join properties p using (organization_id) where p.address = any ($4)

-- name: create_campaign_templates :many
-- The ids come back with the names to be told apart.
insert into campaign_templates (organization_id, name, description, campaign_type, subject, content, created_by,
    created_at, updated_at)
select current_organization_id(), r.name, r.description, r.campaign_type, r.subject, r.content, r.created_by,
    r.created_at, r.updated_at
from jsonb_populate_recordset(null::campaign_templates, $1) r
returning id, name

-- name: create_campaign :value
-- Without recipients, whose insertion counts them.
insert into campaigns (organization_id, name, description, campaign_type, status, subject, content, template_id,
    started_at, completed_at, job_number, tried_since_start, failed_since_start, created_by, created_at)
select current_organization_id(), r.name, r.description, r.campaign_type, r.status, r.subject, r.content,
    r.template_id, r.started_at, r.completed_at, r.job_number, r.tried_since_start, r.failed_since_start, r.created_by,
    r.created_at
from jsonb_populate_record(null::campaigns, $1) r
returning id

-- name: create_campaign_recipients :many
-- The trigger counts them for the campaign.
insert into campaign_recipients (organization_id, campaign_id, lead_id, address, address_key, status, error_message,
    attempts, taken_by, sending_at, sent_at, bounced_at, opened_at, clicked_at, unsubscribed_at, created_at, updated_at)
select current_organization_id(), $1, r.lead_id, r.address, address_key(r.address, null), r.status, r.error_message,
    r.attempts, r.taken_by, r.sending_at, r.sent_at, r.bounced_at, r.opened_at, r.clicked_at, r.unsubscribed_at,
    r.created_at, r.updated_at
from jsonb_populate_recordset(null::campaign_recipients, $2) r
returning id, attempts

-- name: name_messages :exec
-- The ids of the mails, which are made of those of their recipients.
update campaign_recipients r set message_id = m.message_id
from unnest($1::bigint[], $2::text[]) m (id, message_id)
where r.id = m.id

-- name: date_campaign :exec
-- Its counting has left the present time.
update campaigns set updated_at = $2 where id = $1

-- name: create_suppressions :exec
-- As create_valuations.
insert into suppressions (organization_id, email, reason, created_by, created_at)
select current_organization_id(), r.email, r.reason, r.created_by, r.created_at
from jsonb_populate_recordset(null::suppressions, $1) r
on conflict do nothing
