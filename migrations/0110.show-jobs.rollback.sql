drop function retry_job(bigint);
drop function show_jobs(bigint[]);
drop function count_jobs(text, text, timestamptz);
drop function find_jobs(text, text, timestamptz, bigint, bigint, boolean, bigint, bigint);
drop function job_state(text);
drop index procrastinate.procrastinate_jobs_by_organization;
