-- What a deal is found by (its notes, its property's address, its lead's name) in one text, so that one trigram index
-- answers words that are spread over all three. It has a table of its own: most changes of a deal leave it alone.
--
-- Whoever writes a deal's property or lead holds the lock of that row, so no change of an address or a name is missed.
set local lock_timeout = '5s';

create table deal_search_texts (
    organization_id bigint not null,
    deal_id bigint not null,
    text text not null,
    primary key (organization_id, deal_id),
    foreign key (organization_id, deal_id) references deals (organization_id, id) on delete cascade
);
create index deal_search_texts_search on deal_search_texts using gin (organization_id, text gin_trgm_ops);

alter table deal_search_texts enable row level security, force row level security;
create policy tenant on deal_search_texts to reos_app using (organization_id = (select current_organization_id()));
create policy owner on deal_search_texts to reos_owner using (true);
grant select on deal_search_texts to reos_app;

-- The texts are locked before their sources are read, so that the later of two concurrent changes sees the earlier,
-- and in the order of their keys, so that a change of a property and one of a lead cannot deadlock. It is planned once
-- in a session, perhaps while the tables are still empty, and must not read them whole for each deal afterwards.
create function refresh_deal_search_texts(in_organization_id bigint, in_deal_ids bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off as $$
begin
    perform 1 from deal_search_texts s
        where s.organization_id = in_organization_id and s.deal_id in (select unnest(in_deal_ids))
        order by s.deal_id for no key update;
    insert into deal_search_texts as s (organization_id, deal_id, text)
    select d.organization_id, d.id, lower(concat_ws(' ', p.address, l.first_name, l.last_name, d.notes))
    from unnest(in_deal_ids) changed (id)
    join deals d on d.organization_id = in_organization_id and d.id = changed.id
    left join properties p
        on p.organization_id = d.organization_id and p.id = d.property_id and p.deleted_at is null
    left join leads l on l.organization_id = d.organization_id and l.id = d.lead_id and l.deleted_at is null
    on conflict (organization_id, deal_id) do update set text = excluded.text where s.text <> excluded.text;
end $$;

create function deal_texts_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    perform refresh_deal_search_texts(organization_id, array_agg(id)) from inserted group by organization_id;
    return null;
end $$;

create function deal_text_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    perform refresh_deal_search_texts(new.organization_id, array[new.id]);
    return null;
end $$;

create function deal_property_text_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    perform refresh_deal_search_texts(new.organization_id, array(
        select d.id from deals d where d.organization_id = new.organization_id and d.property_id = new.id));
    return null;
end $$;

create function deal_lead_text_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    perform refresh_deal_search_texts(new.organization_id, array(
        select d.id from deals d where d.organization_id = new.organization_id and d.lead_id = new.id));
    return null;
end $$;

revoke all on function refresh_deal_search_texts(bigint, bigint[]), deal_texts_inserted(), deal_text_changed(),
    deal_property_text_changed(), deal_lead_text_changed() from public;

create trigger deal_texts_inserted after insert on deals
    referencing new table as inserted for each statement execute function deal_texts_inserted();
create trigger deal_text_updated after update of notes, property_id, lead_id on deals for each row
    when ((old.notes, old.property_id, old.lead_id) is distinct from (new.notes, new.property_id, new.lead_id))
    execute function deal_text_changed();
create trigger deal_property_text_updated after update of address, deleted_at on properties for each row
    when (old.address <> new.address or (old.deleted_at is null) <> (new.deleted_at is null))
    execute function deal_property_text_changed();
create trigger deal_lead_text_updated after update of first_name, last_name, deleted_at on leads for each row
    when ((old.first_name, old.last_name, old.deleted_at is null)
        is distinct from (new.first_name, new.last_name, new.deleted_at is null))
    execute function deal_lead_text_changed();

-- As search_property_ids: trigram indexes are not leakproof, and `like all` is no condition that an index serves.
create function search_deal_ids(in_patterns text[], in_limit integer) returns setof bigint
language sql stable security definer set search_path = pg_catalog, public, pg_temp set enable_seqscan = off
begin atomic
    select s.deal_id
    from deal_search_texts s
    join deals d on d.organization_id = s.organization_id and d.id = s.deal_id and d.deleted_at is null
    where s.organization_id = current_organization_id()
        and s.text like in_patterns[1]
        and s.text like coalesce(in_patterns[2], in_patterns[1])
        and s.text like coalesce(in_patterns[3], in_patterns[1])
        and s.text like all (in_patterns)
    limit in_limit;
end;
revoke all on function search_deal_ids(text[], integer) from public;
grant execute on function search_deal_ids(text[], integer) to reos_app;
