-- The great-circle distance between two points in kilometres: the haversine formula (R. W. Sinnott, 'Virtues
-- of the Haversine', Sky and Telescope 68, 1984) on a sphere of the mean Earth radius 6371.0088 km (IUGG).
set local lock_timeout = '5s';

create function distance_km(lat1 float8, lng1 float8, lat2 float8, lng2 float8) returns float8
language sql immutable strict parallel safe
return 2 * 6371.0088 * asin(least(1, sqrt(
    power(sin(radians(lat2 - lat1) / 2), 2)
    + cos(radians(lat1)) * cos(radians(lat2)) * power(sin(radians(lng2 - lng1) / 2), 2))));
revoke all on function distance_km(float8, float8, float8, float8) from public;
grant execute on function distance_km(float8, float8, float8, float8) to reos_app;
