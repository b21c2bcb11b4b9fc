-- name: get_login_state :one
-- Who a DSN leads to, what that log-in could do to row security, and whether it may work as the service does.
select session_user::text as login, rolsuper as superuser, rolbypassrls as bypasses_rls,
    coalesce(pg_has_role(session_user, to_regrole('reos_app')::oid, 'member'), false) as may_be_app,
    coalesce(pg_has_role(session_user, to_regrole('reos_owner')::oid, 'member'), false) as may_be_owner
from pg_roles where rolname = session_user
