-- The list of audit rows is read in the order of time, within a user, an action, a kind of resource or one resource.
-- Ids of different kinds of resources seldom meet, so an index over the id serves with and without the kind.
set local lock_timeout = '5s';

create index audit_logs_by_user on audit_logs (organization_id, user_id, created_at, id);
create index audit_logs_by_action on audit_logs (organization_id, action, created_at, id);
create index audit_logs_by_resource_type on audit_logs (organization_id, resource_type, created_at, id);
create index audit_logs_by_resource_id on audit_logs (organization_id, resource_id, created_at, id);
drop index audit_logs_by_resource;
