-- What has changed since a cursor: the committed changes it does not cover, and the cursor that covers them too, from
-- one statement: two would lose whatever commits between them. p_most: with more changes than this, or more bytes
-- than max_changes_read_bytes, the tables are named in behind instead, and the cursor moves on all the same.
--
-- Definer: callers have no right on the feed. The gateway gets whole rows and shows nobody more than the policies let
-- him see; no other role may call this.
create or replace function sync_internal.read_changes(
    p_xmax xid8, p_xips xid8[], p_most bigint, out cursor text, out changes json, out behind text[]
)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
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
        select count(*) <= p_most
            and coalesce(sum(pg_column_size(n.patch)), 0) <= sync_internal.setting('max_changes_read_bytes') as few
        from news n
    )
    select
        sync_internal.cursor_now(p_xmax),
        (
            select coalesce(json_agg(
                json_build_object(
                    'seq', n.seq, 'xid', n.xid::text, 'table', n.table_name, 'id', n.record_id, 'version', n.version,
                    'kind', n.kind, 'topics', n.topics, 'patch', n.patch, 'class', n.class,
                    'moved', n.class_before is not null, 'at', sync_internal.wire_time(n.at),
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
        (
            select coalesce(array_agg(distinct c.table_name), '{}')
            from sync_internal.changes c, counted
            where not counted.few and (c.xid >= p_xmax or c.xid = any (p_xips))
        )
$$;

comment on function sync_internal.read_changes(xid8, xid8[], bigint) is 'What has changed since a cursor.';
grant execute on function sync_internal.read_changes(xid8, xid8[], bigint) to rowcast_gateway;

-- The relay's door to the feed. p_cursor null: only a fresh cursor. Gives {"cursor", "epoch", "fingerprint", "stale",
-- "behind": [tables], "changes": [...]}; stale: the cursor cannot be resumed from, everything must be read anew.
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
            'stale', p_cursor is not null, 'behind', '[]'::json, 'changes', '[]'::json
        );
    end if;
    select * into v_news
    from sync_internal.read_changes(v_from.xmax, v_from.xips, sync_internal.setting('max_changes_read'));
    return json_build_object(
        'cursor', v_news.cursor, 'epoch', sync_internal.epoch(),
        'fingerprint', case when p_fingerprint then sync_internal.fingerprint() end,
        'stale', false, 'behind', v_news.behind, 'changes', v_news.changes
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

-- A number that changes when a policy, grant, role membership, trigger, live table or function may have changed who can
-- see what. There are no event triggers without superuser, so the relay looks at each poll.
create or replace function sync_internal.fingerprint()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select concat_ws(
        '-',
        (
            select coalesce(sum(hashtextextended(concat_ws(' ', c.oid, c.relrowsecurity, c.relacl, c.relowner), 0)), 0)
            from sync_internal.tables t join pg_class c on c.oid = t.relation
        ),
        (
            select coalesce(
                sum(hashtextextended(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.attacl), 0)), 0
            )
            from sync_internal.tables t
            join pg_attribute a on a.attrelid = t.relation and a.attnum > 0
                and (a.attacl is not null or not a.attisdropped)
        ),
        (select coalesce(sum(hashtextextended(concat_ws(' ', p.oid, p.xmin), 0)), 0) from pg_policy p),
        (
            select coalesce(sum(hashtextextended(concat_ws(' ', g.oid, g.tgenabled), 0)), 0)
            from sync_internal.tables t join pg_trigger g on g.tgrelid = t.relation
            where not g.tgisinternal
        ),
        (
            select count(*) || '-' || coalesce(max(p.xmin::text::bigint), 0)
            from pg_proc p
            where p.oid >= 16384
        ),
        (
            select coalesce(sum(hashtextextended(concat_ws(' ', m.roleid, m.member, m.xmin), 0)), 0)
            from pg_auth_members m
        )
    )
$$;

comment on function sync_internal.fingerprint() is 'Changes when who can see what may have changed.';
revoke execute on function sync_internal.epoch(), sync_internal.fingerprint(), sync_internal.read_cursor(text)
from anon, authenticated, service_role;
grant execute on function sync_internal.epoch(), sync_internal.fingerprint(), sync_internal.read_cursor(text)
to rowcast_gateway;
