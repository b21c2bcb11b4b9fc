-- One index for each sort key of the list of users; users_by_creation is the default's.
set local lock_timeout = '5s';

create index users_by_updated_at on users (organization_id, updated_at, id);
create index users_by_email on users (organization_id, email, id);
create index users_by_last_name on users (organization_id, last_name, id);
create index users_by_last_login on users (organization_id, last_login, id);
