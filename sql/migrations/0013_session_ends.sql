-- Purpose: users whose tokens of before a moment do not count any more, or who are disabled; where each relay is in the
-- feed; and since when cursors can be resumed from.
-- Lock: access exclusive on sync_internal.state, a moment. Breaking: no; gateways of an earlier version refuse ended
-- sessions, but leave their sockets open until the token expires.

create table sync_internal.session_ends (
    user_id text primary key constraint user_is_named check (user_id <> ''),
    ended_at timestamptz not null,
    disabled boolean not null default false
);

comment on table sync_internal.session_ends
is 'Users whose tokens issued up to a moment do not count any more, or who are disabled: then none counts.';
alter table sync_internal.session_ends owner to rowcast_owner;

insert into sync_internal.settings (name, value) values ('max_token_days', 400);

-- Unlogged: after a crash every relay says anew where it is, and a standby need not know.
create unlogged table sync_internal.relays (
    name text primary key,
    read_before xid8 not null,
    read_at timestamptz not null,
    said_at timestamptz not null,
    bit integer
);

comment on table sync_internal.relays is 'Where the relay of each gateway was in the feed when it last said so.';
comment on column sync_internal.relays.read_before is 'the xmax of its cursor: it has read no change from there on';
comment on column sync_internal.relays.read_at is 'when it had last read the feed to its end';
comment on column sync_internal.relays.bit is 'its bit in sync_internal.bell, if it has one';
alter table sync_internal.relays owner to rowcast_owner;

comment on column sync_internal.changes.kind
is 'insert, update, delete; bulk (too many rows to list), truncate; access, schema and session tell of no record';

-- squawk-ignore adding-field-with-default
alter table sync_internal.state add column stale_before timestamptz not null default '-infinity';
update sync_internal.state
set stale_before = coalesce(
    (select c.at from sync_internal.changes c order by c.xid, c.seq limit 1), now()
)
where pruned_before > '0';
