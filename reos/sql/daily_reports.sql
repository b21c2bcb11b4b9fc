-- name: list_due_reports :many
-- Of all organisations, at a moment.
select organization_id, user_id, day from list_due_reports($1, $2)

-- name: claim_report :value
-- True for the one who claims it first. What is older than a week is forgotten along the way.
with forgotten as (
    delete from daily_reports where user_id = $1 and day < $2::date - 7
), claimed as (
    insert into daily_reports (organization_id, user_id, day) values (current_organization_id(), $1, $2)
    on conflict do nothing returning 1
)
select exists (select from claimed)
