drop table sending_paces;
drop index campaigns_by_export_file;
alter table campaigns drop export_file_id, drop failed_since_start, drop tried_since_start, drop pause_reason,
    drop job_number;
