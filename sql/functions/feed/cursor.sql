-- Cursors. A cursor is a snapshot, not a number: it says which transactions had committed, so that one that takes its
-- number early and commits late is never skipped. As text: v1.<epoch>.<xmax>.<xips>.<anchor xid>-<seq>-<tag>. Whoever
-- calls functions of SQL sees it so, and could ask for transaction numbers anyway; gateways encrypt it for clients.

-- The cursor of the asking statement. Its xmax is one above the greatest xid of a change this statement can see, never
-- below p_least: no xid is claimed that no committed change vouches for, since a crash hands unlogged xids out again.
-- The anchor is that greatest change: a cursor whose anchor is gone belongs to another history.
--
-- Must stand in the statement that reads the rows it goes with. Definer: callers have no right on the feed.
-- Raises 25006 on a standby, whose snapshots list no running transactions.
create or replace function sync_internal.cursor_now(p_least xid8 default '0')
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_running text;
    v_last record;
    v_state record;
    v_xmax xid8;
begin
    select h.xid, h.seq, h.tag into v_last from sync_internal.changes h order by h.xid desc, h.seq desc limit 1;
    select s.epoch, s.pruned_before into v_state from sync_internal.state s;
    v_xmax := greatest(
        p_least, v_state.pruned_before, coalesce((v_last.xid::text::bigint + 1)::text::xid8, '1')
    );
    select string_agg(x.xip::text, '-' order by x.xip) into v_running
    from pg_snapshot_xip(sync_internal.primary_snapshot()) x (xip)
    where x.xip < v_xmax;
    return concat_ws(
        '.', 'v1', v_state.epoch, v_xmax, coalesce(v_running, ''),
        concat_ws('-', v_last.xid, v_last.seq, v_last.tag)
    );
end
$$;

comment on function sync_internal.cursor_now(xid8) is 'The cursor of the asking statement.';

create or replace function sync_internal.primary_snapshot()
returns pg_snapshot
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if pg_is_in_recovery() then
        raise exception using errcode = '25006', message = 'Cursors are made on the primary only';
    end if;
    return pg_current_snapshot();
end
$$;

comment on function sync_internal.primary_snapshot() is 'The snapshot of the asking statement; never a standby''s.';

-- The parts of a cursor, or stale: another epoch, an xid this server has not reached, pruned, or an anchor that is
-- gone. Null or malformed text is stale too.
create or replace function sync_internal.read_cursor(
    p_cursor text, out stale boolean, out xmax xid8, out xips xid8[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text[];
    v_anchor text[];
    v_state record;
    v_floor xid8;
begin
    stale := true;
    if p_cursor is null or length(p_cursor) > 20000
        or p_cursor !~ '^v1\.[0-9a-f]*\.[0-9]{1,18}\.'
            '([0-9]{1,18}(-[0-9]{1,18})*)?\.([0-9]{1,18}-[0-9]{1,18}-[0-9]{1,10})?$' then
        return;
    end if;
    v_part := string_to_array(p_cursor, '.');
    select s.epoch, s.pruned_before into v_state from sync_internal.state s;
    if v_part[2] <> v_state.epoch then
        return;
    end if;
    xmax := v_part[3]::xid8;
    xips := string_to_array(nullif(v_part[4], ''), '-')::xid8[];
    select least(xmax, min(x.xip)) into v_floor from unnest(xips) x (xip);
    if xmax > pg_snapshot_xmax(sync_internal.primary_snapshot()) or v_floor < v_state.pruned_before then
        return;
    end if;
    if v_part[5] = '' then
        -- Made when the feed was empty: what it claims to have seen cannot be there.
        if exists (select from sync_internal.changes h where h.xid < read_cursor.xmax) then
            return;
        end if;
    else
        v_anchor := string_to_array(v_part[5], '-');
        if not exists (
            select from sync_internal.changes h
            where h.xid = v_anchor[1]::xid8 and h.seq = v_anchor[2]::bigint and h.tag = v_anchor[3]::bigint
        ) then
            return;
        end if;
    end if;
    stale := false;
end
$$;

comment on function sync_internal.read_cursor(text) is 'The parts of a cursor, or that it is stale.';

-- Which history this is: another server, timeline, database, feed or counter makes another epoch.
create or replace function sync_internal.compute_epoch()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_server text := '';
begin
    begin
        -- The timeline of the WAL being written; the control file lags behind it after a promotion.
        v_server := concat_ws(
            ':', (select c.system_identifier from pg_control_system() c), left(pg_walfile_name(pg_current_wal_lsn()), 8)
        );
    exception
        -- Managed servers may hide these; the counter and the anchor of each cursor remain.
        when insufficient_privilege then null;
        -- A standby has no WAL of its own to ask; it makes no cursors either.
        when object_not_in_prerequisite_state then null;
    end;
    return left(encode(sha256(convert_to(concat_ws(
        ':', v_server, (select d.oid from pg_catalog.pg_database d where d.datname = current_database()),
        'sync_internal.changes'::regclass::oid, (select s.epoch_counter from sync_internal.state s)
    ), 'UTF8')), 'hex'), 16);
end
$$;

comment on function sync_internal.compute_epoch() is 'Which history this is.';

-- Starts a new history: every client reads anew. Say it after a restore that put older data in place.
create or replace function sync.new_epoch()
returns text
language sql
volatile
parallel unsafe
security invoker
as $$
    update sync_internal.state set epoch_counter = epoch_counter + 1;
    select sync_internal.settle_epoch();
$$;

comment on function sync.new_epoch() is 'Starts a new history: every client reads anew.';

-- Stores the epoch; where it is another than the stored one the feed is emptied, whose xids mean nothing here. Locks the
-- row of sync_internal.state until the end of the transaction.
create or replace function sync_internal.settle_epoch()
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_epoch text;
begin
    -- One at a time: after a promotion every gateway comes, and a second one would empty what has been committed since.
    perform from sync_internal.state s for update;
    v_epoch := sync_internal.compute_epoch();
    if v_epoch <> (select s.epoch from sync_internal.state s) then
        truncate sync_internal.changes;
        update sync_internal.state set epoch = v_epoch, pruned_before = '0', stale_before = now();
    end if;
    return v_epoch;
end
$$;

comment on function sync_internal.settle_epoch() is 'Stores the epoch, emptying the feed where it is another.';
grant execute on function sync_internal.settle_epoch() to rowcast_gateway;

grant execute on function sync_internal.cursor_now(xid8), sync_internal.primary_snapshot()
to anon, authenticated, service_role, rowcast_gateway;
