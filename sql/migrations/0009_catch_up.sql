-- Purpose: a client that was away long finds its own changes among everybody's.
-- Lock: share on sync_internal.changes while the indexes are built; access exclusive on sync_internal.state, a moment.
-- Breaking: no.

-- By table, and by what a change is subscribed under: its topics and its record's id. A hot index would cost each
-- writer a tree descent per topic; its pending list costs one, and is merged a megabyte at a time.
-- squawk-ignore require-concurrent-index-creation
create index changes_by_table on sync_internal.changes (table_name, xid);
-- squawk-ignore require-concurrent-index-creation
create index changes_by_topic on sync_internal.changes using gin (array_append(topics, record_id))
with (fastupdate = on, gin_pending_list_limit = 1024);
-- What names no record: very few.
-- squawk-ignore require-concurrent-index-creation
create index changes_of_no_record on sync_internal.changes (table_name, xid) where record_id is null;

-- A change as a subscription that is resumed needs it. more: there are further changes of the record, too many to list.
create type sync_internal.missed_change as (
    n bigint,
    name text,
    id text,
    version bigint,
    kind text,
    class text,
    moved boolean,
    more boolean,
    topics text[],
    patch json,
    tx_id uuid
);

-- hidden: wire columns to cut, by table; null where the client did not resume.
create type sync_internal.missed as (
    cursor text,
    stale boolean,
    behind text[],
    hidden jsonb,
    changes sync_internal.missed_change[]
);
alter type sync_internal.missed owner to rowcast_owner;
alter type sync_internal.missed_change owner to rowcast_owner;
grant usage on type sync_internal.missed_change, sync_internal.missed
to anon, authenticated, service_role, rowcast_gateway;

-- The policies as a gateway last saw them: a client that was away while they changed has to be told.
alter table sync_internal.state add column fingerprint text not null default '';
