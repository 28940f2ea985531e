-- Purpose: the feed of committed changes.
-- Lock: none on existing objects. Breaking: no.

create sequence sync_internal.change_seq cache 1;
alter sequence sync_internal.change_seq owner to rowcast_owner;

-- A ring of eight leaves. slot is the period's number modulo eight; an old leaf is emptied by TRUNCATE, so that
-- retention needs no DDL while serving.
create table sync_internal.changes (
    slot smallint not null,
    xid xid8 not null default pg_current_xact_id(),
    seq bigint not null default nextval('sync_internal.change_seq'),
    table_name text not null,
    record_id text,
    version bigint,
    kind text not null,
    topics text[] not null default '{}',
    patch json,
    undo json,
    class text,
    class_before text,
    login name not null default session_user,
    at timestamptz not null default now(),
    tag integer not null default (random() * 2147483646)::integer
) partition by list (slot);

comment on table sync_internal.changes
is 'The feed: one row per changed record, written by the capture triggers alone.';
comment on column sync_internal.changes.kind is 'insert, update, delete, bulk (too many rows to list) or truncate';
comment on column sync_internal.changes.topics is 'column=value of the old and the new row';
comment on column sync_internal.changes.patch is 'changed columns with their new values; inserts: the whole record';
comment on column sync_internal.changes.undo is 'changed columns with their old values; deletes: the whole record';
comment on column sync_internal.changes.class is 'the columns the SELECT policies read; null after a delete';
comment on column sync_internal.changes.class_before is 'the same before the change where it differs; null otherwise';

-- Not compressed, so that its size is known without reading it: what is read at once is bounded in bytes.
alter table sync_internal.changes alter column patch set storage external;

create table sync_internal.changes_0 partition of sync_internal.changes for values in (0);
create table sync_internal.changes_1 partition of sync_internal.changes for values in (1);
create table sync_internal.changes_2 partition of sync_internal.changes for values in (2);
create table sync_internal.changes_3 partition of sync_internal.changes for values in (3);
create table sync_internal.changes_4 partition of sync_internal.changes for values in (4);
create table sync_internal.changes_5 partition of sync_internal.changes for values in (5);
create table sync_internal.changes_6 partition of sync_internal.changes for values in (6);
create table sync_internal.changes_7 partition of sync_internal.changes for values in (7);

create index changes_by_xid on sync_internal.changes (xid, seq);

alter table sync_internal.changes owner to rowcast_owner;
alter table sync_internal.changes_0 owner to rowcast_owner;
alter table sync_internal.changes_1 owner to rowcast_owner;
alter table sync_internal.changes_2 owner to rowcast_owner;
alter table sync_internal.changes_3 owner to rowcast_owner;
alter table sync_internal.changes_4 owner to rowcast_owner;
alter table sync_internal.changes_5 owner to rowcast_owner;
alter table sync_internal.changes_6 owner to rowcast_owner;
alter table sync_internal.changes_7 owner to rowcast_owner;

-- A mark of where one's own changes begin; it tells nothing of them.
grant usage on sequence sync_internal.change_seq to anon, authenticated, service_role;
