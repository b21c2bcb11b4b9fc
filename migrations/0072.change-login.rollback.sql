drop function change_login(bigint, text);
