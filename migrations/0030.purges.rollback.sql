drop function list_abandoned_files();
drop function purge_sessions();
drop function purge_events(integer);
drop function purge_idempotency_keys();
