set local lock_timeout = '5s';

drop index deal_stage_changes_by_changed_at;
drop index lead_activities_by_created_at;
drop index property_activities_by_created_at;

drop index deal_stage_changes_by_deal;
create index deal_stage_changes_by_deal on deal_stage_changes (organization_id, deal_id, id);
drop index transactions_by_date;
create index transactions_by_date on transactions (organization_id, transaction_date, id);
drop index deals_by_created_at;
create index deals_by_created_at on deals (organization_id, created_at, id) where deleted_at is null;
drop index leads_by_created_at;
create index leads_by_created_at on leads (organization_id, created_at, id) where deleted_at is null;
drop index properties_by_created_at;
create index properties_by_created_at on properties (organization_id, created_at, id) where deleted_at is null;
