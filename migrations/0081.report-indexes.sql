-- Analytics read all rows of an organisation, or those of a time, in few columns: with these in the indexes by time
-- they read no row at all. They are the indexes that the lists are sorted by, made wider, and new ones for what
-- happened in the last days.
set local lock_timeout = '5s';

drop index properties_by_created_at;
create index properties_by_created_at on properties (organization_id, created_at, id)
    include (property_type, status, city, price) where deleted_at is null;
drop index leads_by_created_at;
create index leads_by_created_at on leads (organization_id, created_at, id)
    include (status, source, score) where deleted_at is null;
drop index deals_by_created_at;
create index deals_by_created_at on deals (organization_id, created_at, id)
    include (deal_type, stage, value, probability) where deleted_at is null;
drop index transactions_by_date;
create index transactions_by_date on transactions (organization_id, transaction_date, id)
    include (deal_id, transaction_type, amount);
drop index deal_stage_changes_by_deal;
create index deal_stage_changes_by_deal on deal_stage_changes (organization_id, deal_id, id)
    include (new_stage, changed_at);

create index property_activities_by_created_at on property_activities (organization_id, created_at)
    include (property_id);
create index lead_activities_by_created_at on lead_activities (organization_id, created_at) include (lead_id);
create index deal_stage_changes_by_changed_at on deal_stage_changes (organization_id, changed_at)
    include (deal_id, old_stage);
