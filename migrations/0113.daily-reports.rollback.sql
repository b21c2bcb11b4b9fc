drop function list_due_reports(timestamptz, bigint);
drop table daily_reports;
