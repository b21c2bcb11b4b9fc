drop function purge_audit_logs(integer, bigint, bigint);
drop function list_old_audit_logs(integer);
drop index audit_logs_by_age;
