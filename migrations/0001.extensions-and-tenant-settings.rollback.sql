-- The extensions stay: other schemas of the database may use them.
drop function current_user_id();
drop function current_organization_id();
