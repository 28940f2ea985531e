-- What has changed since a cursor: the committed changes it does not cover, and the cursor that covers them too, from
-- one statement: two would lose whatever commits between them. p_most: with more changes than this, or more bytes
-- than max_changes_read_bytes, the tables are named in behind instead, and the cursor moves on all the same.
--
-- Called at every wake-up of every gateway: its plan is made once a session, since that takes longer than all it does.
--
-- Definer: callers have no right on the feed. The gateway gets whole rows and shows nobody more than the policies let
-- him see; no other role may call this.
create or replace function sync_internal.read_changes(
    p_xmax xid8, p_xips xid8[], p_most bigint, out cursor text, out changes json, out behind text[]
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_most_bytes constant bigint := sync_internal.setting('max_changes_read_bytes');
begin
    with
    -- Those after the cursor, and those that were running when it was made: one index condition each, which a
    -- single OR under a limit is not for every planner.
    news as materialized (
        (
            select c.* from sync_internal.changes c
            where c.xid >= p_xmax
            order by c.xid, c.seq
            limit p_most + 1
        )
        union all
        (
            -- A cursor's running transactions lie below its xmax.
            select c.* from sync_internal.changes c
            where c.xid = any (p_xips) and c.xid < p_xmax
            order by c.xid, c.seq
            limit p_most + 1
        )
    ),
    counted as (
        select count(*) <= p_most and coalesce(sum(pg_column_size(n.patch)), 0) <= v_most_bytes as few
        from news n
    )
    select
        sync_internal.cursor_now(p_xmax),
        (
            select coalesce(json_agg(
                json_build_object(
                    'seq', n.seq, 'xid', n.xid::text, 'table', n.table_name, 'id', n.record_id, 'version', n.version,
                    'kind', n.kind, 'topics', n.topics, 'patch', n.patch, 'class', n.class,
                    'classBefore', n.class_before, 'moved', n.class_before is not null, 'at', sync_internal.wire_time(n.at),
                    'txId', (
                        select r.tx_id from sync_internal.receipts r
                        where r.xid = n.xid and n.seq between r.seq_from and r.seq_to
                        -- A function that was called may itself have applied a transaction: the inner one made it.
                        order by r.seq_from desc
                        limit 1
                    )
                ) order by n.xid, n.seq
            ), '[]')
            from news n, counted
            where counted.few
        ),
        -- Under a case, since a join may look through the whole feed before it asks whether there are few.
        case when (select counted.few from counted) then '{}' else (
            select array_agg(distinct c.table_name)
            from (
                select c.table_name from sync_internal.changes c where c.xid >= p_xmax
                union all
                select c.table_name from sync_internal.changes c where c.xid = any (p_xips) and c.xid < p_xmax
            ) c
        ) end
    into cursor, changes, behind;
end
$$;

comment on function sync_internal.read_changes(xid8, xid8[], bigint) is 'What has changed since a cursor.';
grant execute on function sync_internal.read_changes(xid8, xid8[], bigint) to rowcast_gateway;

-- The relay's door to the feed. p_cursor null: only a fresh cursor. Gives {"cursor", "epoch", "fingerprint", "stale",
-- "behind": [tables], "changes": [...], "xmin", "bell"}; stale: the cursor cannot be resumed from, everything must be
-- read anew. xmin: the oldest transaction that ran when the changes were read, of the same snapshot; bell: which bits
-- of the doorbell are set.
-- p_fingerprint: whether to look at the catalogue too, which costs more than the rest; else fingerprint is null.
create or replace function sync.gateway_changes(p_cursor text, p_fingerprint boolean default true)
returns text
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_from record;
    v_news record;
begin
    select * into v_from from sync_internal.read_cursor(p_cursor);
    if v_from.stale then
        return json_build_object(
            'cursor', sync_internal.cursor_now(), 'epoch', sync_internal.epoch(),
            'fingerprint', case when p_fingerprint then sync_internal.fingerprint() end,
            'stale', p_cursor is not null, 'behind', '[]'::json, 'changes', '[]'::json,
            'xmin', pg_snapshot_xmin(sync_internal.primary_snapshot())::text::bigint,
            'xmax', pg_snapshot_xmax(sync_internal.primary_snapshot())::text::bigint,
            'now', sync_internal.wire_time(clock_timestamp()), 'bell', sync_internal.bell_bits()
        );
    end if;
    select * into v_news
    from sync_internal.read_changes(v_from.xmax, v_from.xips, sync_internal.setting('max_changes_read'));
    return json_build_object(
        'cursor', v_news.cursor, 'epoch', sync_internal.epoch(),
        'fingerprint', case when p_fingerprint then sync_internal.fingerprint() end,
        'stale', false, 'behind', v_news.behind, 'changes', v_news.changes,
        'xmin', pg_snapshot_xmin(sync_internal.primary_snapshot())::text::bigint,
        'xmax', pg_snapshot_xmax(sync_internal.primary_snapshot())::text::bigint,
        'now', sync_internal.wire_time(clock_timestamp()), 'bell', sync_internal.bell_bits()
    );
end
$$;

comment on function sync.gateway_changes(text, boolean) is 'The relay''s door to the feed.';
grant execute on function sync.gateway_changes(text, boolean) to rowcast_gateway;

create or replace function sync_internal.epoch()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.epoch from sync_internal.state s
$$;

comment on function sync_internal.epoch() is 'Which history this is, as stored.';

revoke execute on function sync_internal.epoch(), sync_internal.read_cursor(text)
from anon, authenticated, service_role;
grant execute on function sync_internal.epoch(), sync_internal.read_cursor(text) to rowcast_gateway;
