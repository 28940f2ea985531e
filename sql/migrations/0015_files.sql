-- Purpose: which tables hold files, what their rows stand for in the store, and the key that signs links.
-- Lock: access exclusive on sync_internal.state, for a moment. Breaking: no.

create table sync_internal.file_tables (
    relation regclass primary key
);

comment on table sync_internal.file_tables is 'The tables made by sync.files.';
alter table sync_internal.file_tables owner to rowcast_owner;

create table sync_internal.files (
    id uuid primary key,
    relation regclass not null,
    owner text,
    bytes bigint not null constraint size_is_none_below_zero check (bytes >= 0),
    object text,
    busy_until timestamptz not null default '-infinity',
    doomed boolean not null default false,
    untidy boolean not null default false,
    created_at timestamptz not null default now()
);

comment on table sync_internal.files
is 'What rows of files stand for in the store, and what is still there of rows that are gone.';
comment on column sync_internal.files.owner is 'whose quota it counts against: created_by of its row';
comment on column sync_internal.files.object is 'the object that was confirmed; null before';
comment on column sync_internal.files.busy_until is 'an upload by a link given out may run until then';
comment on column sync_internal.files.doomed is 'its row is gone; its objects are to be removed';
comment on column sync_internal.files.untidy is 'confirmed; objects of other uploads may be there';
alter table sync_internal.files owner to rowcast_owner;

create index files_owner on sync_internal.files (owner);
create index files_to_sweep on sync_internal.files (busy_until) where doomed or untidy;
create index files_pending on sync_internal.files (relation, created_at) where object is null and not doomed;

insert into sync_internal.settings (name, value) values
('max_file_bytes', 5368709120),
('file_quota_bytes', 10737418240),
('file_upload_seconds', 900),
('file_download_seconds', 60),
('file_pending_days', 7),
('file_trash_days', 30);

-- 366 random bits of PostgreSQL's strong generator.
alter table sync_internal.state
-- squawk-ignore adding-field-with-default
add column file_key bytea not null default sha512(
    uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
