drop table webhook_logs;
