drop table properties;
