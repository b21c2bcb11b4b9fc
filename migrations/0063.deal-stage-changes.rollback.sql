drop table deal_stage_changes;
