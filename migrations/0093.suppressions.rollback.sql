drop table suppressions;
drop function address_key(text, text);
