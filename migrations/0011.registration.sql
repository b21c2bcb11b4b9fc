-- Registration and log-in happen before a tenant is known.
set local lock_timeout = '5s';

create function create_organization(in_name text, in_slug text) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    new_id bigint;
begin
    insert into organizations (name, slug) values (in_name, in_slug)
        on conflict (slug) do nothing returning id into new_id;
    if new_id is null then
        insert into organizations (name, slug)
            values (in_name, left(in_slug, 80) || '-' || nextval(pg_get_serial_sequence('organizations', 'id')))
            returning id into new_id;
    end if;
    insert into event_counters (organization_id) values (new_id);
    insert into roles (organization_id, name, description, is_system) values
        (new_id, 'Admin', 'Everything in the organisation', true),
        (new_id, 'Manager', 'Everything but the organisation itself, its users, roles and webhooks', true),
        (new_id, 'Agent', 'Works with properties, leads, deals and portfolios', true);
    insert into role_permissions (organization_id, role_id, permission_id)
    select new_id, r.id, p.id
    from roles r join permissions p on case r.name
        when 'Admin' then true
        when 'Manager' then p.name <> 'organization:update'
            and not (p.resource in ('user', 'role', 'webhook') and p.action <> 'read')
        else (p.resource in ('property', 'lead', 'deal', 'portfolio') and p.action in ('create', 'read', 'update'))
            or p.name in ('campaign:read', 'analytics:read', 'user:read', 'team:read', 'organization:read')
        end
    where r.organization_id = new_id;
    return new_id;
end $$;
revoke all on function create_organization(text, text) from public;

create function create_login(in_user_id bigint, in_email_key text, in_password_hash text) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into login_identities (email_key, organization_id, user_id)
        values (in_email_key, current_organization_id(), in_user_id);
    insert into user_credentials (organization_id, user_id, password_hash)
        values (current_organization_id(), in_user_id, in_password_hash);
end $$;
revoke all on function create_login(bigint, text, text) from public;
grant execute on function create_login(bigint, text, text) to reos_app;

-- Makes the organisation and its first Admin, and makes it the tenant of the rest of the transaction.
create function register_organization(
    in_name text, in_slug text, in_email text, in_email_key text, in_password_hash text,
    in_first_name text, in_last_name text, in_phone text, out organization_id bigint, out user_id bigint)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    organization_id := create_organization(in_name, in_slug);
    perform set_config('reos.organization_id', organization_id::text, true);
    insert into users (organization_id, email, first_name, last_name, phone)
        values (register_organization.organization_id, in_email, in_first_name, in_last_name, in_phone)
        returning id into user_id;
    perform set_config('reos.user_id', user_id::text, true);
    perform create_login(user_id, in_email_key, in_password_hash);
    insert into user_roles (organization_id, user_id, role_id)
        select r.organization_id, register_organization.user_id, r.id
        from roles r where r.organization_id = register_organization.organization_id and r.name = 'Admin';
end $$;
revoke all on function register_organization(text, text, text, text, text, text, text, text) from public;
grant execute on function register_organization(text, text, text, text, text, text, text, text) to reos_app;
