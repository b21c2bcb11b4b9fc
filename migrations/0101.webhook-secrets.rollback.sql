drop function forget_webhook_secrets(bigint);
drop function read_webhook_secrets(bigint);
drop function set_webhook_secret(bigint, bytea, interval);
drop table webhook_secrets;
