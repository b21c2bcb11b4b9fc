drop function finish_address_lookup(bigint);
drop function take_address_lookup(bigint);
drop function add_address_lookup(text, text, text, text, text, text);
drop function set_password_hash(bigint, text);
drop function read_password_hash(bigint);
drop function clear_login_attempts(bytea);
drop function record_login_success(bytea, integer, interval);
drop function record_login_failure(text, bytea, integer, interval, boolean, interval);
drop function read_login(text, bytea, interval);
