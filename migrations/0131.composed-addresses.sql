-- Addresses are compared in Unicode's normal form C (RFC 6532, section 3.1), so that one is found however its letters
-- were composed. Of two that are the same now the older user keeps it; the other logs in after an Admin has changed
-- the address.
set local lock_timeout = '5s';

update login_identities i set email_key = normalize(i.email_key)
from (
    select distinct on (normalize(email_key)) email_key from login_identities
    where email_key is not normalized
        and normalize(email_key) not in (select email_key from login_identities where email_key is normalized)
    order by normalize(email_key), user_id
) other
where i.email_key = other.email_key;
