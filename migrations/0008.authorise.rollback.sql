drop function authorise(bigint, bigint, text, boolean);
