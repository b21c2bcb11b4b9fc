-- name: take_rate_limit :one
-- Counts and answers in one round trip; the function holds the row's lock no longer than that.
select held_seconds, granted, reserved, started_at, used, counted_at
from take_rate_limit($1, $2, $3, $4, $5, $6, $7)

-- name: give_back_rate_limits :exec
-- All reserves that a process did not use, at once.
select give_back_rate_limits($1, $2, $3)

-- name: purge_rate_limits :value
-- Rows of clients that have been gone for a day.
select purge_rate_limits()
