-- name: list_missing_parts :many
-- The log-ins and the database of the embedded server that are not there yet, in the order to make them.
select part from (values
    (1, 'owner', exists (select from pg_roles where rolname = 'reos_admin')),
    (2, 'service', exists (select from pg_roles where rolname = 'reos_service')),
    (3, 'database', exists (select from pg_database where datname = 'reos'))
) as parts (number, part, present)
where not present
order by number

-- name: create_owner :exec
-- No superuser: the embedded server shows at once what a managed Postgres would refuse.
create role reos_admin login createrole

-- name: become_owner :exec
-- Who makes a role may give it settings and memberships later (PostgreSQL 16 and newer ask for that).
set role reos_admin

-- name: create_service :exec
-- The log-in of web and workers; its rights come with the roles that migrations give it.
create role reos_service login

-- name: reset_role :exec
-- Making a database needs the superuser again.
reset role

-- name: create_database :exec
-- Owned by the log-in that migrates, as on a managed Postgres.
create database reos owner reos_admin
