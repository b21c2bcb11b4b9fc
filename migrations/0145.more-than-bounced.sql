-- Who unsubscribes or complains after mails to the address have bounced is kept out of letters too, which a bounce alone
-- does not do: the reason of the suppression, which is there already, becomes another.
set local lock_timeout = '5s';

grant update (reason) on suppressions to reos_app;
