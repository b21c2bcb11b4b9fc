-- name: get_time_zone :value
-- The IANA name that days and months are reckoned in.
select coalesce(settings ->> 'timezone', 'UTC') from organizations where id = current_organization_id()
