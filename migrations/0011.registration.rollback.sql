drop function register_organization(text, text, text, text, text, text, text, text);
drop function create_login(bigint, text, text);
drop function create_organization(text, text);
