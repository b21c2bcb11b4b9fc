-- A letter has no address that could be suppressed. Who has unsubscribed by its link, complained, or was put on the list
-- gets no other one; only that mails to an address bounce says nothing about letters. A lead without any address has
-- nothing that could stand on the list, so there the unsubscription itself counts.
set local lock_timeout = '5s';

create function refuses_letters(in_lead leads) returns boolean
language sql stable
return exists (
        select from suppressions s
        where s.address_key in (address_key(in_lead.email, null), address_key(null, in_lead.phone))
            and s.reason is distinct from 'bounced')
    or exists (
        select from campaign_recipients r
        where r.lead_id = in_lead.id and r.address is null and r.unsubscribed_at is not null
            and in_lead.email is null and in_lead.phone is null);
revoke all on function refuses_letters(leads) from public;
grant execute on function refuses_letters(leads) to reos_app;
