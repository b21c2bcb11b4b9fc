-- name: list_role_statements :many
-- What must still be said to have the roles, their members and their rights, in order. Whoever may not say all of it
-- can have a DBA say it once; then nothing is left here. $1 is the migrating log-in, $2 the one of the service.
-- `required` is false where the service can do without: it then takes its role at each connect.
with facts as (
    select $1::name as owner_login, $2::name as service_login, current_database() as db,
        -- Since PostgreSQL 16 a member may or may not be allowed to take the role.
        case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end as taking,
        (select oid from pg_roles where rolname = 'reos_owner') as owner,
        (select oid from pg_roles where rolname = $2) as service
),
members as (
    select owner_login as login, 'reos_owner' as role, 2 as number from facts
    union all
    select service_login, unnest(array['reos_app', 'reos_jobs']), 3 from facts
),
statements as (
    select 1 as number, true as required, format('create role %I nologin', name) as statement
    from unnest(array['reos_owner', 'reos_app', 'reos_jobs']) as name
    where not exists (select from pg_roles where rolname = name)
    union all
    select m.number, true, format('grant %I to %I', m.role, m.login)
    from facts f, members m
    left join pg_roles r on r.rolname = m.role
    left join pg_roles l on l.rolname = m.login
    where pg_has_role(l.oid, r.oid, (select taking from facts)) is not true
    union all
    select 4, true, format('grant create on database %I to reos_owner', db) from facts
    where has_database_privilege(owner, db, 'create') is not true
    union all
    select 5, true, 'grant usage, create on schema public to reos_owner' from facts
    where (has_schema_privilege(owner, 'public', 'usage') and has_schema_privilege(owner, 'public', 'create')) is not true
    union all
    select 6, true, format('grant usage on schema public to %I', name)
    from unnest(array['reos_app', 'reos_jobs']) as name
    left join pg_roles r on r.rolname = name
    where has_schema_privilege(r.oid, 'public', 'usage') is not true
    union all
    select 7, false, format('alter role %I in database %I set role = %L', service_login, db, 'reos_app') from facts
    where service_login <> owner_login
        and not exists (
            select from pg_db_role_setting s
            where s.setrole = service
                and s.setdatabase = (select d.oid from pg_database d where d.datname = db)
                and 'role=reos_app' = any(s.setconfig)
        )
)
select required, statement from statements order by number, statement

-- name: list_unsafe_roles :many
-- Row security does not hold for these; it was somebody's deliberate statement, so it is reported, not undone.
select rolname::text from pg_roles
where rolname in ('reos_owner', 'reos_app', 'reos_jobs') and (rolsuper or rolbypassrls)
order by rolname

-- name: reset_role :exec
-- The log-in may start as another role by default.
set role none

-- name: become_owner :exec
-- Whatever a migration makes belongs to the role that owns everything.
set role reos_owner

-- name: set_search_path :exec
-- A setting of the log-in must not lead migrations into another schema.
set search_path = public

-- name: get_login :value
-- Who the DSN leads to, whichever role the connection works as.
select session_user::text

-- name: lock_migrations :exec
-- One migration at a time in a database; others wait. Held until the connection ends.
select pg_advisory_lock(7235926017)

-- name: has_migrations :value
-- Whether the list of applied migrations is there at all.
select to_regclass('public._yoyo_migration') is not null

-- name: has_lock_table :value
-- A new database has none of yoyo's tables.
select to_regclass('public.yoyo_lock') is not null

-- name: list_applied :many
-- In the order of their names, which is the order in which they were applied.
select migration_id from public._yoyo_migration order by migration_id

-- name: grant_list_of_applied :exec
-- So that serve and worker can see whether the database is behind.
grant select on public._yoyo_migration to reos_app, reos_jobs
