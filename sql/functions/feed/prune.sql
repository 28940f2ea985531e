-- Ends what is older than the retention (setting retention_days): empties leaves of the feed and removes receipts; also
-- ends of sessions older than any token (max_token_days). Safe to run at any time and by several at once; the gateway
-- does so once an hour. A leaf is emptied by TRUNCATE, which
-- waits for nobody longer than lock_timeout. Gives the number of receipts removed.
create or replace function sync.prune()
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_before constant timestamptz := now() - sync_internal.setting('retention_days') * interval '1 day';
    v_leaf regclass;
    v_newest timestamptz;
    v_highest xid8;
    v_count bigint;
begin
    if not pg_try_advisory_xact_lock(7215604) then
        return 0;
    end if;
    for v_leaf in
        select i.inhrelid::regclass from pg_inherits i where i.inhparent = 'sync_internal.changes'::regclass
    loop
        execute format('select max(c.at), max(c.xid) from %s c', v_leaf) into v_newest, v_highest;
        if v_newest < v_before then
            execute format('truncate %s', v_leaf);
            -- A cursor that has not seen all of it is stale from now on.
            update sync_internal.state s
            set pruned_before = greatest(s.pruned_before, (v_highest::text::bigint + 1)::text::xid8),
                stale_before = greatest(s.stale_before, v_newest);
        end if;
    end loop;

    -- No token of before these moments is valid any more. Who is disabled stays so.
    delete from sync_internal.session_ends e
    where not e.disabled and e.ended_at < now() - sync_internal.setting('max_token_days') * interval '1 day';
    perform accounts.prune();
    delete from sync_internal.relays r where r.said_at < now() - interval '1 hour';

    -- Ids older than the floor are refused from now on, so their receipts are not needed. It only rises. A receipt also
    -- stays as long as the feed may show its transaction.
    update sync_internal.state s set receipt_floor = greatest(s.receipt_floor, v_before);
    delete from sync_internal.receipts r
    using sync_internal.state s
    where r.id_time < s.receipt_floor and r.at < v_before;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

comment on function sync.prune() is 'Ends what is older than the retention.';
grant execute on function sync.prune() to rowcast_gateway, rowcast_worker;
