-- What was deleted softly goes for good after its retention, unless a row that is kept still refers to it.
set local lock_timeout = '5s';

create index properties_by_deletion on properties (deleted_at) where deleted_at is not null;
create index leads_by_deletion on leads (deleted_at) where deleted_at is not null;
create index deals_by_deletion on deals (deleted_at) where deleted_at is not null;
create index portfolios_by_deletion on portfolios (deleted_at) where deleted_at is not null;
create index campaigns_by_deletion on campaigns (deleted_at) where deleted_at is not null;
create index campaign_templates_by_deletion on campaign_templates (deleted_at) where deleted_at is not null;

-- Removes up to 1,000 rows of each kind and says how many: those first that refer to others. What hangs on a row goes
-- with it, and its files are left to the sweep.
create function purge_soft_deleted(in_days integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    cutoff constant timestamptz := now() - make_interval(days => in_days);
    purged bigint := 0;
    batch bigint;
begin
    if in_days < 1 then
        raise exception 'deleted rows are kept for at least a day';
    end if;

    delete from deals d using (
        select o.organization_id, o.id from deals o
        where o.deleted_at < cutoff and not exists (select from properties p
            where p.organization_id = o.organization_id and p.status_deal_id = o.id)
        order by o.deleted_at limit 1000 for update skip locked
    ) gone
    where d.organization_id = gone.organization_id and d.id = gone.id;
    get diagnostics batch = row_count;
    purged := purged + batch;

    with gone as (
        select o.organization_id, o.id, o.export_file_id from campaigns o
        where o.deleted_at < cutoff order by o.deleted_at limit 1000 for update skip locked
    ), released as (
        update stored_files f set is_pending = true
        from gone where f.organization_id = gone.organization_id and f.id = gone.export_file_id
    )
    delete from campaigns c using gone where c.organization_id = gone.organization_id and c.id = gone.id;
    get diagnostics batch = row_count;
    purged := purged + batch;

    delete from campaign_templates t using (
        select o.organization_id, o.id from campaign_templates o
        where o.deleted_at < cutoff and not exists (select from campaigns c
            where c.organization_id = o.organization_id and c.template_id = o.id)
        order by o.deleted_at limit 1000 for update skip locked
    ) gone
    where t.organization_id = gone.organization_id and t.id = gone.id;
    get diagnostics batch = row_count;
    purged := purged + batch;

    -- A recipient's row would go with the lead, and the campaign's counts with it.
    with gone as (
        select o.organization_id, o.id from leads o
        where o.deleted_at < cutoff
            and not exists (select from deals d where d.organization_id = o.organization_id and d.lead_id = o.id)
            and not exists (select from campaign_recipients r
                where r.organization_id = o.organization_id and r.lead_id = o.id)
        order by o.deleted_at limit 1000 for update skip locked
    ), released as (
        update stored_files f set is_pending = true
        from lead_documents d join gone on gone.organization_id = d.organization_id and gone.id = d.lead_id
        where f.organization_id = d.organization_id and f.id = d.file_id
    )
    delete from leads l using gone where l.organization_id = gone.organization_id and l.id = gone.id;
    get diagnostics batch = row_count;
    purged := purged + batch;

    with gone as (
        select o.organization_id, o.id from properties o
        where o.deleted_at < cutoff
            and not exists (select from deals d where d.organization_id = o.organization_id and d.property_id = o.id)
        order by o.deleted_at limit 1000 for update skip locked
    ), released as (
        update stored_files f set is_pending = true
        from property_images i join gone on gone.organization_id = i.organization_id and gone.id = i.property_id
        where f.organization_id = i.organization_id and f.id in (i.file_id, i.thumbnail_file_id)
    )
    delete from properties p using gone where p.organization_id = gone.organization_id and p.id = gone.id;
    get diagnostics batch = row_count;
    purged := purged + batch;

    delete from portfolios p using (
        select o.organization_id, o.id from portfolios o
        where o.deleted_at < cutoff order by o.deleted_at limit 1000 for update skip locked
    ) gone
    where p.organization_id = gone.organization_id and p.id = gone.id;
    get diagnostics batch = row_count;
    return purged + batch;
end $$;

revoke all on function purge_soft_deleted(integer) from public;
grant execute on function purge_soft_deleted(integer) to reos_app;
