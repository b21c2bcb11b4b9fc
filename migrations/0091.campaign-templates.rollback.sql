drop index campaigns_by_creator;
drop index campaigns_by_template;
alter table campaigns drop template_id;
drop table campaign_templates;
