create index audit_logs_by_resource on audit_logs (organization_id, resource_type, resource_id, id desc);
drop index audit_logs_by_resource_id;
drop index audit_logs_by_resource_type;
drop index audit_logs_by_action;
drop index audit_logs_by_user;
