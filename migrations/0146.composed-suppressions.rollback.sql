set local lock_timeout = '5s';

create or replace function address_key(in_email text, in_phone text) returns text
language sql immutable parallel safe
return coalesce(lower(in_email), nullif(regexp_replace(in_phone, '[^0-9]', '', 'g'), ''));
