-- The doorbell: says that writers have to ring for this session's relay (p_ring), or no longer. Gives the number of the
-- relay's bit in the sequence sync_internal.bell; null where nothing was done, since another relay is at it this
-- moment or no bit can be had: ask again.
--
-- Once it has said that they ring, a relay may sleep when it has listened since before, has called
-- sync.gateway_fence() in a later transaction, and then reads the feed in a snapshot whose oldest running transaction
-- is younger than that fence. Every writer that looked at the bit too early has ended by then.
--
-- A bit is held by a session lock (7215605, bit), so it needs a connection of its own that is no pooler's. Bits that
-- nobody holds any more are cleared on the way. When all are taken the last one is shared, and never cleared while
-- somebody holds it: a bit too many only rings. Locks (7215605, 63) until the end of the transaction.
--
-- Definer: nobody else may read or set the sequence.
create or replace function sync.gateway_bell(p_ring boolean)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_shared constant integer := 62;
    v_held bigint;
    v_bit integer;
    v_bell record;
    v_value bigint;
begin
    if not pg_try_advisory_xact_lock(7215605, 63) then
        return null;
    end if;
    select
        coalesce(bit_or(1::bigint << l.objid::integer), 0),
        min(l.objid::integer) filter (where l.pid = pg_backend_pid())
    into v_held, v_bit
    from pg_locks l
    where l.locktype = 'advisory' and l.granted
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.classid = 7215605 and l.objsubid = 2 and l.objid <= v_shared::oid;
    if v_bit is null then
        select s.bit into v_bit
        from generate_series(0, v_shared - 1) s (bit)
        where pg_try_advisory_lock(7215605, s.bit)
        limit 1;
    end if;
    if v_bit is null then
        if not pg_try_advisory_lock_shared(7215605, v_shared) then
            return null;
        end if;
        v_bit := v_shared;
    end if;

    select b.last_value, b.is_called into v_bell from sync_internal.bell b;
    v_value := v_bell.last_value & v_held;
    if p_ring then
        v_value := v_value | (1::bigint << v_bit);
    elsif v_bit <> v_shared then
        v_value := v_value & ~(1::bigint << v_bit);
    end if;
    if v_value <> v_bell.last_value or not v_bell.is_called then
        perform setval('sync_internal.bell', v_value);
    end if;
    return v_bit;
end
$$;

comment on function sync.gateway_bell(boolean) is 'Says whether writers have to ring for this session''s relay.';

-- A transaction id that every writer who may have looked at the doorbell before is older than. To be called in a later
-- transaction than sync.gateway_bell: that one has taken its id before it set the bit.
create or replace function sync.gateway_fence()
returns bigint
language sql
volatile
parallel unsafe
security invoker
as $$
    select pg_catalog.pg_current_xact_id()::text::bigint
$$;

comment on function sync.gateway_fence() is 'A transaction id younger than all that looked at the doorbell before.';

-- The bits that are set now, whatever the snapshot. Definer: nobody else may read the sequence.
create or replace function sync_internal.bell_bits()
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select b.last_value from sync_internal.bell b
$$;

comment on function sync_internal.bell_bits() is 'The bits of the doorbell that are set.';
grant execute on function sync.gateway_bell(boolean), sync.gateway_fence(), sync_internal.bell_bits()
to rowcast_gateway;
