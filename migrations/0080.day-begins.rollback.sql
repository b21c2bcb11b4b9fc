drop function day_begins(date, text);
