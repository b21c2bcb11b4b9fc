drop table campaign_recipients;
drop function count_campaign_recipients();
