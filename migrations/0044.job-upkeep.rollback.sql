drop function purge_jobs(integer, integer);
drop function rescue_stalled_jobs(interval, text[], integer[]);
drop trigger drop_queueing_lock on procrastinate.procrastinate_jobs;
drop function procrastinate.drop_queueing_lock();
