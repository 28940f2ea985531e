-- Purpose: what the SELECT policies of live tables read, and the tables watched for it.
-- Lock: share update exclusive on sync_internal.changes, for comments. Breaking: no.

-- A table or view that the policies of a live table read: which columns, of a table. Written when its code is made.
create table sync_internal.reads (
    table_id integer not null references sync_internal.tables (table_id) on delete cascade,
    relation regclass not null,
    column_names name[] not null,
    primary key (table_id, relation)
);

-- A function that the policies of a live table call, built-in ones apart.
create table sync_internal.policy_calls (
    table_id integer not null references sync_internal.tables (table_id) on delete cascade,
    function regprocedure not null,
    primary key (table_id, function)
);

-- Tables whose rows each concern one user's rights, as sync.membership was told.
create table sync_internal.memberships (
    relation regclass primary key,
    user_column name not null
);

-- A table with triggers that record invalidations: what of it policies read, and whose rights its rows are.
create table sync_internal.watches (
    watch_id integer primary key generated always as identity,
    relation regclass not null constraint one_watch_per_relation unique,
    column_names name[] not null,
    user_column name
);

alter table sync_internal.reads owner to rowcast_owner;
alter table sync_internal.policy_calls owner to rowcast_owner;
alter table sync_internal.memberships owner to rowcast_owner;
alter table sync_internal.watches owner to rowcast_owner;

comment on column sync_internal.changes.table_name is 'wire name of a live table; schema.table for kind access';
comment on column sync_internal.changes.kind
is 'insert, update, delete, bulk (too many rows to list), truncate, or access: rows that policies read have changed';
comment on column sync_internal.changes.patch
is 'changed columns with their new values; inserts: the whole record; access: {"users": [...]}, null for everybody';
