-- name: take_session_lock :value
-- 1 to 3 are taken by migrations 0016 and 0044, for locks that end with their transaction.
select pg_try_advisory_lock(hashtextextended($1, 4))

-- name: release_session_lock :value
-- False, with a warning, where it is not held.
select pg_advisory_unlock(hashtextextended($1, 4))
