-- name: own_schema :fragment
n.nspname !~ '^pg_' and n.nspname <> 'information_schema'

-- name: label :fragment
case when n.nspname <> 'public' then n.nspname || '.' else '' end || c.relname

-- name: relations :fragment
select c.oid, n.nspname as schema, c.relname as name, {label} as label, c.relkind as kind,
        pg_get_userbyid(c.relowner) as owner, c.relrowsecurity as is_enabled, c.relforcerowsecurity as is_forced,
        coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on'], false) as is_invoker,
        c.relname ~ '^_?yoyo_' as is_migrations,
        exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'organization_id'
            and not a.attisdropped) as is_tenant
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and {own_schema}
        and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')

-- name: list_relations :many
-- Tables (kind r), views (v, m), foreign tables (f) and sequences (S), without those of extensions.
-- Look for: a table without is_enabled or is_forced (the migrations' own books are the exception), a view without
-- is_invoker (it reads as its owner), a materialised view or a foreign table that somebody may read (they know no
-- row security), another owner than reos_owner.
{relations} order by 2, 3

-- name: list_policies :many
-- Look for: a table of organisations (one with organization_id) without its two policies, and any policy that shows
-- reos_app more than organization_id = (select current_organization_id()), or shows anything to public.
select p.schemaname::text as schema, case when p.schemaname <> 'public' then p.schemaname || '.' else '' end
        || p.tablename as label,
    p.policyname::text as name, p.permissive = 'PERMISSIVE' as is_permissive, p.roles::text[] as roles, p.cmd as command,
    p.qual as using_text, p.with_check as check_text
from pg_policies p join pg_namespace n on n.nspname = p.schemaname where {own_schema}
order by 1, 2, p.policyname desc

-- name: list_grants :many
-- What the two working roles and everybody (public) can do, in whatever way they came to it, down to columns.
-- Look for: truncate, references or trigger (none of them asks row security), anything of public's, anything of
-- reos_app's in the schema of the queue, anything of reos_jobs' outside of it but select on _yoyo_migration.
with relations as (
    {relations}
), grantees as materialized (
    select rolname::text as role from pg_roles where rolname in ('reos_app', 'reos_jobs')
    union all
    select 'public'
)
select r.role, p.privilege, c.label as object, null as columns
from relations c, grantees r,
    unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p (privilege)
where c.kind <> 'S' and has_table_privilege(r.role, c.oid, p.privilege)
union all
select r.role, p.privilege, c.label,
    (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a where a.attrelid = c.oid
        and a.attnum > 0 and not a.attisdropped and has_column_privilege(r.role, c.oid, a.attnum, p.privilege))
from relations c, grantees r, unnest(array['select', 'insert', 'update', 'references']) p (privilege)
where c.kind <> 'S' and not has_table_privilege(r.role, c.oid, p.privilege)
    and has_any_column_privilege(r.role, c.oid, p.privilege)
union all
select r.role, p.privilege, 'sequence ' || c.label, null
from relations c, grantees r, unnest(array['usage', 'select', 'update']) p (privilege)
where c.kind = 'S' and has_sequence_privilege(r.role, c.oid, p.privilege)
union all
select r.role, p.privilege, 'schema ' || n.nspname, null
from pg_namespace n, grantees r, unnest(array['usage', 'create']) p (privilege)
where {own_schema} and has_schema_privilege(r.role, n.oid, p.privilege)
union all
select r.role, 'create', 'database', null
from grantees r where has_database_privilege(r.role, current_database(), 'create')
order by 3, 1, 2

-- name: list_functions :many
-- Functions without those of extensions. The definer functions are the only way around row security.
-- Look for: is_public on any of them; a definer function (is_definer) whose settings pin no search_path that ends
-- in pg_temp, or that somebody else than reos_owner owns.
select p.oid, n.nspname as schema, p.proname as name, p.prosecdef as is_definer, p.proconfig as settings,
    pg_get_userbyid(p.proowner) as owner, p.prorettype = 'trigger'::regtype as is_trigger,
    has_function_privilege('public', p.oid, 'execute') as is_public,
    array(select rolname::text from pg_roles where rolname in ('reos_app', 'reos_jobs')
        and has_function_privilege(rolname, p.oid, 'execute') order by 1) as executed_by,
    case when n.nspname <> 'public' then n.nspname || '.' else '' end || p.proname
        || '(' || oidvectortypes(p.proargtypes) || ')' as signature
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where {own_schema} and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
order by 2, 3, 10

-- name: list_indexes :many
-- Look for: a unique one of a table of organisations whose columns do not begin with organization_id. It would tell
-- one organisation whether a value exists in another.
select n.nspname as schema, x.relname as name, i.indrelid as oid, c.relname as table, {label} as label,
    i.indisunique as is_unique, i.indisprimary as is_primary, pg_get_expr(i.indpred, i.indrelid) as predicate,
    (select array_agg(a.attname::text order by k.n)
        from unnest(string_to_array(i.indkey::text, ' ')::int[]) with ordinality k (number, n)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number) as columns,
    am.amname as method
from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
join pg_class x on x.oid = i.indexrelid join pg_am am on am.oid = x.relam
where {own_schema} and c.relname !~ '^_?yoyo_' order by 1, 4, 2

-- name: list_foreign_keys :many
-- Look for: one between tables of organisations whose columns or target_columns do not begin with organization_id.
-- Foreign keys look past row security, so it could point at another organisation's row.
select f.conname as name, f.conrelid as oid, n.nspname as schema, c.relname as table, {label} as label,
    t.relname as target,
    (select array_agg(a.attname::text order by k.n) from unnest(f.conkey) with ordinality k (number, n)
        join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number) as columns,
    (select array_agg(a.attname::text order by k.n) from unnest(f.confkey) with ordinality k (number, n)
        join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number) as target_columns,
    f.confdeltype as on_delete, f.confupdtype as on_update
from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_class t on t.oid = f.confrelid
join pg_namespace n on n.oid = c.relnamespace
where f.contype = 'f' and {own_schema} order by 3, 4, 1

-- name: list_roles :many
-- Look for: any power of the three roles (each column is_… or may_… is false), any role that they are members of, and
-- a log-in among members that should not work as the role.
select r.rolname::text as name, r.rolcanlogin as may_log_in, r.rolsuper as is_superuser, r.rolbypassrls as bypasses_rls,
    r.rolcreaterole as may_create_roles, r.rolcreatedb as may_create_databases, r.rolreplication as may_replicate,
    array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid order by 1) as member_of,
    array(select distinct m.member::regrole::text from pg_auth_members m where m.roleid = r.oid order by 1) as members
from pg_roles r where r.rolname in ('reos_owner', 'reos_app', 'reos_jobs') order by r.rolname

-- name: bound_time :exec
-- For the transaction that reads the catalogue: a policy's text cannot be read while its table is being altered.
set local statement_timeout = '10s'
