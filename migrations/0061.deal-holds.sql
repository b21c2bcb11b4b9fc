-- A property knows which deal gave it its status: under contract while the deal holds it, sold or rented when the deal
-- was won. Null when the status was set by hand. It stands here and not with the deal, so that the lock of the property
-- decides between two deals, and a status set by hand ends the deal's claim without touching the deal.
set local lock_timeout = '5s';

alter table properties add column status_deal_id bigint,
    add foreign key (organization_id, status_deal_id) references deals (organization_id, id),
    add check (status_deal_id is null or status in ('under_contract', 'sold', 'rented'));
create index properties_by_status_deal on properties (organization_id, status_deal_id) where status_deal_id is not null;

-- What the locks see to, stated once more: no two deals hold one property.
create unique index deals_holding_key on deals (organization_id, property_id)
    where deleted_at is null and stage in ('contract', 'inspection', 'financing', 'closing');
