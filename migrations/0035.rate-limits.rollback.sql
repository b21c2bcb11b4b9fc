drop function purge_rate_limits();
drop function give_back_rate_limits(bytea[], bigint[], timestamptz[]);
drop function take_rate_limit(bytea, bigint, bigint, bigint[], interval, bigint, timestamptz[]);
drop table rate_limits;
