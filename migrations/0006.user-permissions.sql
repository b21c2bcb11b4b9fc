-- users.permissions is derived: whatever changes a user's roles or a role's permissions recomputes it.
set local lock_timeout = '5s';

create function refresh_user_permissions(in_organization_id bigint, in_user_ids bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    -- Locked in the order of their keys, so that two refreshes cannot deadlock, and before the new sums
    -- are read, so that the later of two concurrent changes sees the earlier.
    perform 1 from users where organization_id = in_organization_id and id = any (in_user_ids)
        order by id for no key update;
    update users u set permissions = coalesce((
        select array_agg(distinct p.name order by p.name)
        from user_roles ur
        join role_permissions rp using (organization_id, role_id)
        join permissions p on p.id = rp.permission_id
        where ur.organization_id = u.organization_id and ur.user_id = u.id
    ), '{}')
    where u.organization_id = in_organization_id and u.id = any (in_user_ids);
end $$;
revoke all on function refresh_user_permissions(bigint, bigint[]) from public;

create function user_roles_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    perform refresh_user_permissions(organization_id, array_agg(distinct user_id))
    from changed group by organization_id;
    return null;
end $$;

create function role_permissions_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    -- Waits for grants of the role that are under way, so that their users are seen below.
    perform 1 from roles r
        where (r.organization_id, r.id) in (select organization_id, role_id from changed)
        order by r.organization_id, r.id for update;
    perform refresh_user_permissions(ur.organization_id, array_agg(distinct ur.user_id))
    from user_roles ur
    where (ur.organization_id, ur.role_id) in (select organization_id, role_id from changed)
    group by ur.organization_id;
    return null;
end $$;
revoke all on function user_roles_changed(), role_permissions_changed() from public;

create trigger user_roles_inserted after insert on user_roles
    referencing new table as changed for each statement execute function user_roles_changed();
create trigger user_roles_deleted after delete on user_roles
    referencing old table as changed for each statement execute function user_roles_changed();
create trigger role_permissions_inserted after insert on role_permissions
    referencing new table as changed for each statement execute function role_permissions_changed();
create trigger role_permissions_deleted after delete on role_permissions
    referencing old table as changed for each statement execute function role_permissions_changed();
