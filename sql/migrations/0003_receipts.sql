-- Purpose: the stored outcome of every transaction.
-- Lock: none on existing objects. Breaking: no.

-- xid and the two numbers tell which changes of the feed the transaction made: those of the same xid whose seq lies
-- between them. So the feed needs no second write, and nobody can claim a change by a setting.
create table sync_internal.receipts (
    tx_id uuid primary key,
    author text not null,
    digest bigint not null,
    outcome jsonb not null,
    id_time timestamptz,
    at timestamptz not null default now(),
    xid xid8 not null default pg_current_xact_id(),
    seq_from bigint not null,
    seq_to bigint not null
);

create index receipts_by_xid on sync_internal.receipts (xid);
create index receipts_by_age on sync_internal.receipts using brin (at);

comment on table sync_internal.receipts is
'Outcome of each transaction by its txId; holds no row contents. id_time is null for ids that carry no time.';

alter table sync_internal.receipts owner to rowcast_owner;
