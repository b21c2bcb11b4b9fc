-- Pictures of a property: a link, or an upload with its thumbnail.
set local lock_timeout = '5s';

create table property_images (
    organization_id bigint not null,
    id bigint generated always as identity,
    property_id bigint not null,
    url text check (char_length(url) between 1 and 1000),
    file_id bigint,
    thumbnail_file_id bigint,
    title text check (char_length(title) <= 200),
    description text,
    "order" integer not null default 0 check ("order" >= 0),
    is_primary boolean not null default false,
    created_by bigint,
    created_at timestamptz not null default now(),
    primary key (organization_id, id),
    foreign key (organization_id, property_id) references properties (organization_id, id) on delete cascade,
    foreign key (organization_id, file_id) references stored_files (organization_id, id),
    foreign key (organization_id, thumbnail_file_id) references stored_files (organization_id, id),
    foreign key (organization_id, created_by) references users (organization_id, id),
    check ((url is null) <> (file_id is null))
);
create index property_images_by_property on property_images (organization_id, property_id, "order", id);
create unique index property_images_primary_key on property_images (organization_id, property_id) where is_primary;
create index property_images_by_file on property_images (organization_id, file_id);
create index property_images_by_thumbnail on property_images (organization_id, thumbnail_file_id);

alter table property_images enable row level security, force row level security;
create policy tenant on property_images to reos_app using (organization_id = (select current_organization_id()));
create policy owner on property_images to reos_owner using (true);
grant select, insert, update (is_primary), delete on property_images to reos_app;
