-- name: transaction_columns :fragment
t.id, t.deal_id, t.transaction_type, t.amount, t.description, t.transaction_date, t.metadata, t.created_by,
t.created_at, t.updated_at

-- name: transaction_cells :fragment
-- The same for a file, in which what is JSON is text, and which is not about one deal.
t.id, t.deal_id, (select d.deal_type from deals d where d.organization_id = t.organization_id and d.id = t.deal_id)
as deal_type, t.transaction_type, t.amount, t.description, t.transaction_date, t.metadata::text as metadata, t.created_by,
t.created_at, t.updated_at

-- name: lock_transaction :one
-- Of the deal in the path only.
select {transaction_columns} from transactions t where t.deal_id = $1 and t.id = $2 for no key update

-- name: create_transaction :one
-- Absent fields take the columns' defaults through the record that the body is merged into.
insert into transactions as t (organization_id, deal_id, transaction_type, amount, description, transaction_date,
    metadata, created_by)
select current_organization_id(), $1, r.transaction_type, r.amount, r.description, r.transaction_date, r.metadata,
    current_user_id()
from jsonb_populate_record(null::transactions, $2::jsonb) r
returning {transaction_columns}

-- name: update_transaction :one
-- The patch is merged into the row: an absent key keeps its value, a null clears it.
update transactions t set (transaction_type, amount, description, transaction_date, metadata, updated_at)
    = (select r.transaction_type, r.amount, r.description, r.transaction_date, r.metadata, clock_timestamp()
    from jsonb_populate_record(t, $2::jsonb) r)
where t.id = $1
returning {transaction_columns}

-- name: delete_transaction :exec
-- For good; the audit row keeps what it was.
delete from transactions where id = $1
