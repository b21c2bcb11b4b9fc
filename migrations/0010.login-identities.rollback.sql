drop table pending_address_lookups;
drop table login_attempts;
drop table login_identities;
