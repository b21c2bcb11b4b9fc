-- name: take_session_lock :value
-- 1 and 2 are the locks of migration 0016, which end with their transaction.
select pg_try_advisory_lock(hashtextextended($1, 3))

-- name: release_session_lock :value
-- False, with a warning, where it is not held.
select pg_advisory_unlock(hashtextextended($1, 3))
