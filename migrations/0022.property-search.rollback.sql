drop function search_property_ids(text[], integer);
