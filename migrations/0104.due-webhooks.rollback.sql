drop function list_due_webhooks(bigint);
