-- A user who is given another address logs in with it from then on. The app role has no right to the table, and a
-- taken address breaks login_identities_pkey, whoever has it.
set local lock_timeout = '5s';

create function change_login(in_user_id bigint, in_email_key text) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update login_identities set email_key = in_email_key
    where organization_id = current_organization_id() and user_id = in_user_id;
end;
revoke all on function change_login(bigint, text) from public;
grant execute on function change_login(bigint, text) to reos_app;
