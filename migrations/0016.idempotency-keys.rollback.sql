drop function keep_public_answer(bytea, text, bytea, smallint, jsonb, bytea);
drop function claim_public_idempotency_key(bytea, text);
drop function keep_answer(text, bytea, smallint, jsonb, bytea);
drop function claim_idempotency_key(text);
drop table public_idempotency_keys;
drop table idempotency_keys;
