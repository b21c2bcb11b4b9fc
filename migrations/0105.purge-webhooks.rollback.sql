drop function purge_webhooks(integer);
