-- name: portfolio_columns :fragment
-- What the portfolio's own row holds; count and value come from its properties.
f.id, f.organization_id, f.name, f.description, f.metadata, f.created_by, f.created_at, f.updated_at, f.deleted_at

-- name: get_portfolio :one
-- The portfolio's own part of the single GET.
select {portfolio_columns} from portfolios f where f.id = $1 and f.deleted_at is null

-- name: lock_portfolio :one
-- Locked for a change; what is added to it or removed from it waits.
select {portfolio_columns} from portfolios f where f.id = $1 and f.deleted_at is null for no key update

-- name: create_portfolio :one
-- With its properties, which have been checked.
with created as (
    insert into portfolios (organization_id, name, description, metadata, created_by)
    values (current_organization_id(), $1, $2, $3, current_user_id())
    returning *
), filled as (
    insert into portfolio_properties (organization_id, portfolio_id, property_id)
    select c.organization_id, c.id, property_id from created c, unnest($4::bigint[]) property_id
)
select {portfolio_columns} from created f

-- name: update_portfolio :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it.
update portfolios f set (name, description, metadata, updated_at)
    = (select r.name, r.description, r.metadata, clock_timestamp() from jsonb_populate_record(f, $2::jsonb) r)
where f.id = $1 and f.deleted_at is null
returning {portfolio_columns}

-- name: touch_portfolio :exec
-- What is in it belongs to it, so that `updated_since` shows it.
update portfolios set updated_at = clock_timestamp() where id = $1

-- name: delete_portfolio :exec
-- Softly: hidden everywhere until it is purged.
update portfolios set deleted_at = clock_timestamp(), updated_at = clock_timestamp() where id = $1 and deleted_at is null

-- name: restore_portfolio :one
-- Undoes the soft delete.
update portfolios f set deleted_at = null, updated_at = clock_timestamp() where f.id = $1 and f.deleted_at is not null
returning {portfolio_columns}

-- name: sum_portfolios :many
-- Count and value of a page of portfolios. Deleted properties neither show nor count.
select i.id, count(p.id) as property_count, coalesce(sum(p.price), 0)::numeric(24, 2) as total_value
from unnest($1::bigint[]) i (id)
left join portfolio_properties m on m.portfolio_id = i.id
left join properties p on p.id = m.property_id and p.deleted_at is null
group by i.id

-- name: add_portfolio_property :value
-- Null when it is in the portfolio already.
insert into portfolio_properties (organization_id, portfolio_id, property_id)
values (current_organization_id(), $1, $2) on conflict do nothing returning property_id

-- name: remove_portfolio_property :value
-- A deleted property is as absent as one that is not in the portfolio.
delete from portfolio_properties m using properties p
where m.portfolio_id = $1 and m.property_id = $2 and p.id = m.property_id and p.deleted_at is null
returning m.property_id

-- name: search_portfolio_ids :value
-- The hits of the trigram index, up to the limit; row security would keep the index out of a plain query.
select array(select search_portfolio_ids($1, $2))

-- name: get_portfolio_stats :one
-- A property counts in each portfolio that it is in, so that the portfolios' own sums add up to these. The average is
-- that of a number with many places: a large quotient has as few as four otherwise, and would be rounded twice.
select count(distinct f.id) as total_portfolios, count(p.id) as total_properties,
    coalesce(sum(p.price), 0)::numeric(24, 2) as total_value,
    coalesce(sum(p.price)::numeric(44, 20) / nullif(count(distinct f.id), 0), 0)::numeric(24, 2) as avg_portfolio_value
from portfolios f
left join portfolio_properties m on m.portfolio_id = f.id
left join properties p on p.id = m.property_id and p.deleted_at is null
where f.deleted_at is null
