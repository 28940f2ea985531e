-- Purpose: composite types passed between the write functions.
-- Lock: none on existing objects. Breaking: no.

-- What one written record has become. record is JSON text, null where nobody asked for it.
create type sync_internal.written as (version bigint, record text);

-- What the outcome of a transaction is made of; record_map is JSON text. again: transient, worth another try;
-- nothing is stored then.
create type sync_internal.attempted as (outcome jsonb, record_map text, again boolean);

-- What writing needs to know of a live table.
create type sync_internal.traits as (id_type text, depth integer, alone boolean, reread boolean, hard_delete boolean);

alter type sync_internal.written owner to rowcast_owner;
alter type sync_internal.attempted owner to rowcast_owner;
alter type sync_internal.traits owner to rowcast_owner;

grant usage on type sync_internal.written, sync_internal.attempted, sync_internal.traits to
anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

-- One step of a transaction: what happens to one record, or a call. op_numbers: from which operation each op came.
create type sync_internal.step as (
    name text, id text, ops jsonb, op_numbers integer[], creating boolean, removing boolean, call jsonb
);

alter type sync_internal.step owner to rowcast_owner;

grant usage on type sync_internal.step to anon, authenticated, service_role;

-- The answer to one request: HTTP status, JSON text, and whether something transient happened.
create type sync_internal.answer as (status integer, body text, again boolean);

alter type sync_internal.answer owner to rowcast_owner;

grant usage on type sync_internal.answer to anon, authenticated, service_role, rowcast_gateway;

-- What is known of a transaction before it is tried: its stored outcome, or the mark at which its changes begin.
create type sync_internal.claim as (outcome jsonb, seq_from bigint);

alter type sync_internal.claim owner to rowcast_owner;

grant usage on type sync_internal.claim to anon, authenticated, service_role;
