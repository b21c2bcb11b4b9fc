-- The check of every authenticated request now also names the transaction's tenant and user. Each statement of the
-- round trip that begins is parsed by itself, so that one does what three did; and the verdict is one expression,
-- since each line of plpgsql has its price too.
set local lock_timeout = '5s';

drop function authorise(bigint, bigint, text, boolean);
create function authorise(in_organization_id bigint, in_user_id bigint, in_session_id bigint, in_permission text,
    in_verified boolean) returns void language plpgsql as $$
declare
    verdict text;
begin
    perform set_config('reos.organization_id', in_organization_id::text, true),
        set_config('reos.user_id', in_user_id::text, true);
    select case
        when not u.is_active then 'REA01'
        when not o.is_active then 'REA03'
        when in_verified and not u.is_verified then 'REA04'
        when in_permission is null or in_permission = any (u.permissions)
            or string_to_array(in_permission, ' ') <@ u.permissions then 'go on'
        else 'REA02' end
    into verdict
    from sessions s
    join users u on u.organization_id = s.organization_id and u.id = s.user_id
    join organizations o on o.id = s.organization_id
    where s.organization_id = in_organization_id and s.id = in_session_id and s.user_id = in_user_id
        and s.revoked_at is null and s.expires_at > now();
    if verdict = 'go on' then
        return;
    elsif verdict = 'REA02' then
        -- Of several permissions the refusal tells the first that is missing.
        raise exception 'the permission is missing' using errcode = 'REA02', detail = (
            select w.name from string_to_table(in_permission, ' ') with ordinality w (name, position)
            where w.name <> all (select unnest(u.permissions) from users u
                where u.organization_id = in_organization_id and u.id = in_user_id)
            order by w.position limit 1);
    end if;
    raise exception 'the session does not allow it' using errcode = coalesce(verdict, 'REA01');
end $$;
revoke all on function authorise(bigint, bigint, bigint, text, boolean) from public;
grant execute on function authorise(bigint, bigint, bigint, text, boolean) to reos_app;
