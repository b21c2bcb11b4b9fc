-- Days are reckoned in Python and in SQL, each with a list of time zones of its own: an organisation may have only
-- those that Postgres knows too. Asked by using it, because the view of all of them reads hundreds of files.
set local lock_timeout = '5s';

create function knows_time_zone(in_name text) returns boolean
language plpgsql stable set search_path = pg_catalog, public, pg_temp as $$
begin
    perform now() at time zone in_name;
    return true;
exception when invalid_parameter_value then
    return false;
end $$;
revoke all on function knows_time_zone(text) from public;
grant execute on function knows_time_zone(text) to reos_app;
