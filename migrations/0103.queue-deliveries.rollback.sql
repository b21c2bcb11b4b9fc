drop function queue_deliveries(jsonb);
drop function wake_webhooks(bigint[]);
