-- name: claim_idempotency_key :one
-- The lock and the kept answer in one round trip; the function says why it is a function.
select is_claimed, fingerprint, status, headers, body from claim_idempotency_key($1)

-- name: keep_answer :exec
-- Replaces an answer that is older than its 24 hours.
select keep_answer($1, $2, $3, $4, $5)

-- name: claim_public_idempotency_key :one
-- The same before log-in, where the scope is an HMAC of the client's address.
select is_claimed, fingerprint, status, headers, body from claim_public_idempotency_key($1, $2)

-- name: keep_public_answer :exec
-- The same before log-in.
select keep_public_answer($1, $2, $3, $4, $5, $6)

-- name: purge_idempotency_keys :value
-- Both kinds of keys, by the hour.
select purge_idempotency_keys()
