-- Which job has taken a recipient for sending: what a job left behind when its worker died, its next attempt finds by
-- that, and by nothing that another job has in its hands.
set local lock_timeout = '5s';

alter table campaign_recipients add taken_by integer;
grant update (taken_by) on campaign_recipients to reos_app;
