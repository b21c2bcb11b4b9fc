-- An address is suppressed however its letters were composed: keys are in Unicode's normal form C (RFC 6532, section
-- 3.1), as those that users log in by. Of two suppressions that are the same now the older one stays, but
-- that a bounce does not stand for what a person has said: it keeps out mails, and no letters.
set local lock_timeout = '5s';

create or replace function address_key(in_email text, in_phone text) returns text
language sql immutable parallel safe
return coalesce(lower(normalize(in_email)), nullif(regexp_replace(in_phone, '[^0-9]', '', 'g'), ''));

delete from suppressions s
where exists (select from suppressions other
    where other.organization_id = s.organization_id
        and (other.reason is not distinct from 'bounced', other.id) < (s.reason is not distinct from 'bounced', s.id)
        and (s.address_key is not normalized or other.address_key is not normalized)
        and normalize(other.address_key) = normalize(s.address_key));
-- The key is made anew.
update suppressions set email = email where address_key is not normalized;

update campaign_recipients r set address_key = normalize(r.address_key)
where r.status = 'pending' and r.address_key is not normalized
    and not exists (select from campaign_recipients other
        where other.organization_id = r.organization_id and other.campaign_id = r.campaign_id and other.id <> r.id
            and normalize(other.address_key) = normalize(r.address_key));
