alter table campaign_recipients drop taken_by;
