-- A relay says where it is: its cursor, how long ago it had read the feed to its end, and its bit in the doorbell, null
-- for none. Definer: the table is private.
create or replace function sync.gateway_report(p_name text, p_cursor text, p_seconds double precision, p_bit integer)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sync_internal.relays as r (name, read_before, read_at, said_at, bit)
    select
        p_name, split_part(p_cursor, '.', 3)::xid8, clock_timestamp() - p_seconds * interval '1 second',
        clock_timestamp(), p_bit
    from sync_internal.state s
    -- Not by read_cursor, which looks into the feed: who cannot read it has to say so all the same.
    where split_part(p_cursor, '.', 2) = s.epoch
    on conflict (name) do update
    set read_before = excluded.read_before, read_at = excluded.read_at, said_at = excluded.said_at, bit = excluded.bit;
    return found;
end
$$;

comment on function sync.gateway_report(text, text, double precision, integer) is 'A relay says where it is.';
grant execute on function sync.gateway_report(text, text, double precision, integer) to rowcast_gateway;
