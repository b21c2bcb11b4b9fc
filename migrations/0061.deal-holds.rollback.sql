drop index deals_holding_key;
alter table properties drop column status_deal_id;
