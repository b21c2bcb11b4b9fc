drop index users_by_last_login;
drop index users_by_last_name;
drop index users_by_email;
drop index users_by_updated_at;
