drop table lead_notes;
