drop function job_health();
