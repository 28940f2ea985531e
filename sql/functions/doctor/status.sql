-- How large feed and receipts are, how old, and how far each relay is: {"at", "epoch", "version", "migration",
-- "retentionDays", "feed": {"bytes", "oldestAt", "oldestSeconds", "prunedBefore", "staleBefore"}, "receipts": {"bytes",
-- "oldestAt", "oldestSeconds", "floor"}, "relays": [{"name", "readBefore", "readAt", "behindSeconds", "asleep"}],
-- "bell": {"asleep", "awake"}, "sessions": {"ended", "disabled"}}. Nothing of rows. Costs some milliseconds, whatever
-- the sizes. No locks.
--
-- Clients keep their cursors themselves: how old the oldest is nobody knows. A cursor of before staleBefore is stale.
-- Definer: the tables are private.
create or replace function sync.status()
returns jsonb
language sql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with places as materialized (select p.* from sync_internal.relay_places() p)
    select jsonb_build_object(
        'at', sync_internal.wire_time(now()),
        'epoch', s.epoch,
        'version', s.schema_version,
        'migration', (select max(m.name) from sync_internal.migrations m where m.name like 'migrations/%'),
        'retentionDays', sync_internal.setting('retention_days'),
        'feed', jsonb_build_object(
            'bytes', (
                select sum(pg_total_relation_size(i.inhrelid))::bigint
                from pg_inherits i where i.inhparent = 'sync_internal.changes'::regclass
            ),
            'oldestAt', sync_internal.wire_time(f.at),
            'oldestSeconds', extract(epoch from now() - f.at),
            'prunedBefore', s.pruned_before::text,
            'staleBefore', sync_internal.wire_time(nullif(s.stale_before, '-infinity'))
        ),
        'receipts', jsonb_build_object(
            'bytes', pg_total_relation_size('sync_internal.receipts'),
            'oldestAt', sync_internal.wire_time(r.at),
            'oldestSeconds', extract(epoch from now() - r.at),
            'floor', sync_internal.wire_time(nullif(s.receipt_floor, '-infinity'))
        ),
        'relays', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', p.name, 'readBefore', p.read_before::text, 'readAt', sync_internal.wire_time(p.read_at),
                'behindSeconds', extract(epoch from p.behind), 'asleep', p.asleep
            ) order by p.name), '[]')
            from places p
        ),
        'bell', jsonb_build_object(
            'asleep', (select count(*) from sync_internal.bits_held() b where b.ring),
            'awake', (select count(*) from places p where not p.asleep)
        ),
        'sessions', (
            select jsonb_build_object('ended', count(*), 'disabled', count(*) filter (where e.disabled))
            from sync_internal.session_ends e
        )
    )
    from sync_internal.state s
    -- By their transactions: nothing is sorted by time.
    left join lateral (select c.at from sync_internal.changes c order by c.xid, c.seq limit 1) f on true
    left join lateral (select c.at from sync_internal.receipts c order by c.xid limit 1) r on true
$$;

comment on function sync.status() is 'How large feed and receipts are, how old, and how far each relay is.';
grant execute on function sync.status() to service_role, rowcast_gateway, rowcast_worker;

-- The bits of the doorbell that some session holds, and whether writers ring for it.
create or replace function sync_internal.bits_held()
returns table (number integer, ring boolean)
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select distinct l.objid::integer, b.last_value >> l.objid::integer & 1 = 1
    from pg_locks l cross join sync_internal.bell b
    where l.locktype = 'advisory' and l.granted
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.classid = 7215605 and l.objsubid = 2 and l.objid <= 62::oid
$$;

comment on function sync_internal.bits_held() is 'The bits of the doorbell that are held.';

-- Where the relays are that were heard of lately. behind: at most that long ago it had read everything. A standby knows of
-- none: unlogged tables are empty there, and may not even be looked at.
create or replace function sync_internal.relay_places()
returns table (name text, read_before xid8, read_at timestamptz, behind interval, asleep boolean)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_is_in_recovery() then
        return;
    end if;
    return query
    select r.name, r.read_before, r.read_at, greatest(clock_timestamp() - r.read_at, '0'),
        exists (select from sync_internal.bits_held() b where b.number = r.bit and b.ring)
    from sync_internal.relays r
    where r.said_at > clock_timestamp() - interval '10 seconds';
end
$$;

comment on function sync_internal.relay_places() is 'Where the relays are that were heard of lately.';
