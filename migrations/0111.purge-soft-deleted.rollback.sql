drop function purge_soft_deleted(integer);
drop index campaign_templates_by_deletion;
drop index campaigns_by_deletion;
drop index portfolios_by_deletion;
drop index deals_by_deletion;
drop index leads_by_deletion;
drop index properties_by_deletion;
