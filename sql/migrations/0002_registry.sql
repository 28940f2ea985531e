-- Purpose: the registry of live tables, their columns, callable functions, logins and settings.
-- Lock: none on existing objects. Breaking: no.

-- One row per live table. The wire name is the name clients use.
create table sync_internal.tables (
    table_id integer primary key generated always as identity,
    relation regclass not null constraint one_entry_per_relation unique,
    name text not null constraint one_entry_per_name unique,
    id_column name not null,
    id_type text not null constraint id_type_is_known check (id_type in ('uuid', 'text', 'bigint')),
    version_column name not null,
    soft_delete name,
    touch name,
    hard_delete boolean not null,
    whole_table boolean not null,
    batch boolean not null,
    foreign_triggers boolean not null,
    depth integer not null,
    signature text not null,
    options jsonb not null
);

comment on column sync_internal.tables.options is 'What sync.enable was told: names, topics, server_owned, exclude.';
comment on column sync_internal.tables.signature
is 'Hash of the shape, grants and policies the generated code was made for.';

-- One row per column a client may hear of. Excluded columns have no row.
create table sync_internal.columns (
    table_id integer not null references sync_internal.tables (table_id) on delete cascade,
    position smallint not null,
    column_name name not null,
    name text not null,
    kind text not null,
    sql_type text not null,
    element_kind text,
    nullable boolean not null,
    default_expression text,
    computed boolean not null,
    server_owned boolean not null,
    topic boolean not null,
    policy boolean not null,
    in_unique boolean not null,
    parent_id integer,
    enum_values text[],
    primary key (table_id, position),
    constraint one_column_per_name unique (table_id, name)
);

-- Unique constraints and indexes other than the id, to answer whose row a write clashed with.
create table sync_internal.uniques (
    table_id integer not null references sync_internal.tables (table_id) on delete cascade,
    constraint_name name not null,
    column_names name[] not null,
    primary key (table_id, constraint_name)
);

-- SQL functions that operations may call.
create table sync_internal.callables (
    name text primary key,
    function regprocedure not null constraint one_name_per_function unique
);

-- Database logins that are people: their identity comes from here, never from a setting.
create table sync_internal.logins (
    login name primary key,
    user_id text not null,
    role text not null constraint role_is_known check (role in ('anon', 'authenticated', 'service_role'))
);

-- Logins whose request.jwt.claims are believed, beside the gateway and the worker.
create table sync_internal.trusted_logins (login name primary key);

-- Further settings an application's policies read, and the claim each is filled from.
create table sync_internal.identity_settings (setting text primary key, claim text not null);

create table sync_internal.settings (
    name text primary key,
    value bigint not null,
    constraint value_is_positive check (value > 0)
);

comment on table sync_internal.settings is 'Limits and periods; change them with sync.configure.';

insert into sync_internal.settings (name, value) values
('max_operations', 500),
('max_transaction_bytes', 1048576),
('max_transactions', 50),
('max_record_bytes', 262144),
('max_list_items', 10000),
('max_depth', 32),
('max_path', 16),
('max_pointers', 1000),
('max_keys', 2000),
('batch_lock_timeout_ms', 30),
('retention_days', 30),
('max_changes_read', 10000),
('max_changes_read_bytes', 16777216),
('max_changes_per_statement', 100000);

-- The one row of facts that change while running.
create table sync_internal.state (
    one boolean primary key default true constraint single_row check (one),
    schema_version text not null default '',
    epoch text not null default '',
    epoch_counter bigint not null default 0,
    receipt_floor timestamptz not null default '-infinity',
    pruned_before xid8 not null default '0'
);

insert into sync_internal.state default values;

alter table sync_internal.tables owner to rowcast_owner;
alter table sync_internal.columns owner to rowcast_owner;
alter table sync_internal.uniques owner to rowcast_owner;
alter table sync_internal.callables owner to rowcast_owner;
alter table sync_internal.logins owner to rowcast_owner;
alter table sync_internal.trusted_logins owner to rowcast_owner;
alter table sync_internal.identity_settings owner to rowcast_owner;
alter table sync_internal.settings owner to rowcast_owner;
alter table sync_internal.state owner to rowcast_owner;
