drop function live_sessions(bigint[], bigint[]);
drop function announce_streams(uuid, bigint[], integer[]);
drop table stream_listeners;
