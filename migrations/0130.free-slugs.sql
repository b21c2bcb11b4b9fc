-- Where a slug is taken a number is put behind it. That may be taken too, by an organisation whose name ends in this
-- number, and registration must not fail over it: nobody has chosen the slug.
set local lock_timeout = '5s';

create or replace function create_organization(in_name text, in_slug text) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    new_id bigint;
    free_slug text := in_slug;
begin
    loop
        insert into organizations (name, slug) values (in_name, free_slug)
            on conflict (slug) do nothing returning id into new_id;
        exit when new_id is not null;
        free_slug := left(in_slug, 80) || '-' || nextval(pg_get_serial_sequence('organizations', 'id'));
    end loop;
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
