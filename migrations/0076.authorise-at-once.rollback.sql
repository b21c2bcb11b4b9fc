drop function authorise(bigint, bigint, bigint, text, boolean);
create function authorise(in_user_id bigint, in_session_id bigint, in_permission text, in_verified boolean)
returns void language plpgsql stable as $$
declare
    found_row record;
begin
    select u.is_active, u.is_verified, o.is_active as organization_is_active, u.permissions,
        in_permission is null or string_to_array(in_permission, ' ') <@ u.permissions as is_permitted
    into found_row
    from sessions s
    join users u on u.organization_id = s.organization_id and u.id = s.user_id
    join organizations o on o.id = s.organization_id
    where s.organization_id = current_organization_id() and s.id = in_session_id and s.user_id = in_user_id
        and s.revoked_at is null and s.expires_at > now();
    if not found or not found_row.is_active then
        raise exception 'the session has ended' using errcode = 'REA01';
    elsif not found_row.organization_is_active then
        raise exception 'the organisation is not active' using errcode = 'REA03';
    elsif in_verified and not found_row.is_verified then
        raise exception 'the address is not verified' using errcode = 'REA04';
    elsif not found_row.is_permitted then
        raise exception 'the permission is missing' using errcode = 'REA02', detail = (
            select w.name from string_to_table(in_permission, ' ') with ordinality w (name, position)
            where w.name <> all (found_row.permissions) order by w.position limit 1);
    end if;
end $$;
revoke all on function authorise(bigint, bigint, text, boolean) from public;
grant execute on function authorise(bigint, bigint, text, boolean) to reos_app;
