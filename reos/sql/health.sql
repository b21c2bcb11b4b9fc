-- name: count_migrations :value
-- A round trip that shows that role and search path are right, and which schema the service works with.
select count(*) from _yoyo_migration
