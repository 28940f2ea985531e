-- Presence and broadcasts cross gateways here. They are no part of the feed: nothing of them is logged, and what was
-- not read within ten seconds is gone.

-- Tells the other gateways something: parcels whose meaning is theirs, in this order. p_trim: removes what is older
-- than ten seconds as well. Rings the doorbell where somebody sleeps. Gives the number of parcels.
--
-- Definer: nobody has a right on the table.
create or replace function sync.gateway_signal(p_gateway uuid, p_bodies text[], p_trim boolean default false)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sync_internal.signal_era (one) values (true) on conflict do nothing;
    insert into sync_internal.signals (gateway, n, body)
    select p_gateway, b.n, b.body from unnest(p_bodies) with ordinality b (body, n);
    if p_trim then
        delete from sync_internal.signals s where s.at < now() - interval '10 s';
    end if;
    -- The bell rings for who sleeps; null: restored without its value.
    if pg_sequence_last_value('sync_internal.bell') is distinct from 0 then
        perform pg_notify('rowcast', '');
    end if;
    return cardinality(p_bodies);
end
$$;

comment on function sync.gateway_signal(uuid, text[], boolean) is 'Tells the other gateways something.';

-- What the other gateways have told since a cursor, and the next cursor, of one snapshot. Gives {"cursor", "whole",
-- "behind", "signals": [[gateway, age in seconds, body], ...]}, each gateway's in their order. whole: the cursor was null or of before
-- a crash, and this is all there is. behind: there were more than 8 MiB, and this is the end of them.
--
-- Like the feed's, a cursor is a snapshot: a transaction that commits late is not skipped. It needs no anchor there,
-- since a crash, which hands transaction ids out again, empties the table and so ends the era.
--
-- Definer: nobody has a right on the table.
create or replace function sync.gateway_signals(p_gateway uuid, p_cursor text default null)
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_era text := (select e.era::text from sync_internal.signal_era e);
    v_part constant text[] := string_to_array(p_cursor, '.');
    v_whole constant boolean := p_cursor is null or v_part[1] is distinct from coalesce(v_era, '');
    v_xmax constant xid8 := case when v_whole then '0' else v_part[2] end;
    v_xips constant xid8[] := case when not v_whole then string_to_array(nullif(v_part[3], ''), '-') end;
    v_most constant bigint := 8388608;
begin
    return (
        with
        news as (
            select s.xid, s.n, s.gateway, s.body, extract(epoch from now() - s.at) as age
            from sync_internal.signals s
            where (s.xid >= v_xmax or s.xid = any (v_xips)) and s.gateway <> p_gateway
                and s.at > now() - interval '10 s'
        ),
        sized as (
            select n.*, sum(octet_length(n.body)) over (order by n.xid desc, n.n desc) <= v_most as fits
            from news n
        )
        select json_build_object(
            'cursor', concat_ws(
                '.', coalesce(v_era, ''), pg_snapshot_xmax(s.taken),
                (select coalesce(string_agg(x.xip::text, '-'), '') from pg_snapshot_xip(s.taken) x (xip))
            ),
            'whole', v_whole,
            'behind', exists (select from sized z where not z.fits),
            'signals', (
                select coalesce(json_agg(json_build_array(z.gateway, z.age, z.body) order by z.xid, z.n), '[]')
                from sized z
                where z.fits
            )
        )::text
        from (select sync_internal.primary_snapshot()) s (taken)
    );
end
$$;

comment on function sync.gateway_signals(uuid, text) is 'What the other gateways have told since a cursor.';
grant execute on function sync.gateway_signal(uuid, text[], boolean), sync.gateway_signals(uuid, text)
to rowcast_gateway;
