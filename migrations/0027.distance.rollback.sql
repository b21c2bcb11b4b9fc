drop function distance_km(float8, float8, float8, float8);
