-- name: create_one_time_token :exec
-- The digest alone: who reads the table cannot use what is in it.
insert into one_time_tokens (organization_id, user_id, session_id, purpose, token_hash, expires_at)
values (current_organization_id(), $1, $2, $3, $4, now() + make_interval(secs => $5))

-- name: redeem_one_time_token :one
-- Of two at the same time one waits for the other's row and then finds it used. A used link spends the user's other
-- links of the kind as well, since each of them opens the same door; tickets are independent of each other.
with redeemed as (
    update one_time_tokens set used_at = now()
    where user_id = $1 and purpose = $2 and token_hash = $3 and used_at is null and expires_at > now()
    returning organization_id, id, user_id, session_id
), spent as (
    update one_time_tokens t set used_at = now()
    from redeemed r
    where t.user_id = $1 and t.purpose = $2 and $2 <> 'stream_ticket' and t.id <> r.id and t.used_at is null
)
select organization_id, user_id, session_id from redeemed

-- name: count_links_of_hour :value
-- Used ones too: a mailbox is as full of them.
select count(*) from one_time_tokens where user_id = $1 and purpose = $2 and created_at > now() - interval '1 hour'

-- name: spend_links :exec
-- The tickets of streams end with their session; links do when what they stand for has changed.
update one_time_tokens set used_at = now() where user_id = $1 and purpose = any ($2) and used_at is null
