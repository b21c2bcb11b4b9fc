drop function defer_job(text, text, jsonb, text, text, timestamptz);
