drop function search_campaign_ids(text[], integer);
drop index campaigns_search;
alter table campaigns drop search_text;
