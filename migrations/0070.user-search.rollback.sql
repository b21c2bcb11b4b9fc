drop function search_user_ids(text[], integer);
drop index users_search;
alter table users drop search_text;
