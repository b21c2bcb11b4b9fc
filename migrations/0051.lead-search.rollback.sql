drop function search_lead_ids(text[], integer);
