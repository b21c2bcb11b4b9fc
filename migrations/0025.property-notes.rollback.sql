drop table property_notes;
