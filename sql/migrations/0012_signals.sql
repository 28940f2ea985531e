-- Purpose: presence and broadcasts on their way between gateways.
-- Lock: none on existing objects. Breaking: no.

-- Not logged: they live for seconds, and their commits wait for no disk.
create unlogged table sync_internal.signals (
    xid xid8 not null default pg_current_xact_id(),
    n bigint not null,
    gateway uuid not null,
    body text not null,
    at timestamptz not null default now(),
    primary key (xid, n)
);

comment on table sync_internal.signals
is 'What gateways tell each other of presence and broadcasts; a row is a parcel of one gateway, gone after seconds.';

create index signals_by_at on sync_internal.signals (at);

-- After a crash the server empties unlogged tables: then this row is another one, or none.
create unlogged table sync_internal.signal_era (
    one boolean primary key default true constraint single_era check (one),
    era uuid not null default gen_random_uuid()
);

comment on table sync_internal.signal_era is 'Tells whether the signals were lost with a crash of the server.';

alter table sync_internal.signals owner to rowcast_owner;
alter table sync_internal.signal_era owner to rowcast_owner;
