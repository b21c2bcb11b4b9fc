drop table lead_activities;
