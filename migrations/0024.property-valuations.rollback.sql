drop table property_valuations;
