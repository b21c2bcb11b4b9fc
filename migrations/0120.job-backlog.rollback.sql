drop function job_backlog();
drop index procrastinate.procrastinate_jobs_failed;
