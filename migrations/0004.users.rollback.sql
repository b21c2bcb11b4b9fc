drop table user_credentials;
drop table users;
