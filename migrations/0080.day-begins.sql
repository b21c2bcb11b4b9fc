-- When a day begins in a time zone. A day that begins twice, because the clocks go back at midnight (Havana, the
-- Azores), begins with the first of the two; Postgres by itself would take the second.
set local lock_timeout = '5s';

create function day_begins(in_day date, in_zone text) returns timestamptz
language sql stable strict
return (
    select coalesce(min(moment) filter (where (moment at time zone in_zone)::date = in_day), max(moment))
    from unnest(array[
        in_day::timestamp at time zone in_zone,
        (in_day::timestamp at time zone in_zone) - interval '1 hour'
    ]) moment
);
revoke all on function day_begins(date, text) from public;
grant execute on function day_begins(date, text) to reos_app;
