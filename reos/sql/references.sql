-- name: list_missing_references :many
-- The fields whose ids lead nowhere, all in one round trip. What is deleted, foreign (row security hides it) or no
-- longer active is as absent as what never was.
select r.field
from jsonb_to_recordset($1::jsonb) r (field text, kind text, id bigint)
where not case r.kind
    when 'property' then exists (select from properties p where p.id = r.id and p.deleted_at is null)
    when 'lead' then exists (select from leads l where l.id = r.id and l.deleted_at is null)
    when 'template' then exists (select from campaign_templates t where t.id = r.id and t.deleted_at is null)
    when 'user' then exists (select from users u where u.id = r.id and u.is_active)
end
