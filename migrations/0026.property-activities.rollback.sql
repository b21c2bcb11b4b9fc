drop table property_activities;
