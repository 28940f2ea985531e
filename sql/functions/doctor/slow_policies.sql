-- SELECT policies that cost more than they need: each with the table, why, and what to do. For administrators: a policy's
-- text is theirs. Costs some milliseconds a live table. No locks.
--
-- Seen in the catalogue: functions of identity that are called for each row, and tables that policies read and that
-- are read from end to end. Seen in the statistics, where track_functions is on: functions that take long.
create or replace function sync.slow_policies()
returns table (relation regclass, policy name, reason text, fix text)
language sql
volatile
parallel unsafe
security invoker
as $$
    with
    policies as (
        select t.relation, t.name as live, p.polname as policy, pg_get_expr(p.polqual, p.polrelid) as text
        from sync_internal.tables t
        join pg_catalog.pg_policy p on p.polrelid = t.relation and p.polcmd in ('r', '*')
    ),
    per_row as (
        -- As (select auth.uid()) it is called once a query, and Postgres prints SELECT before it.
        select p.*, m.found[1] as call
        from policies p
        cross join lateral regexp_matches(
            regexp_replace(p.text, 'SELECT (auth\.(uid|jwt|role)|current_setting)\(', '', 'g'),
            '((?:auth\.(?:uid|jwt|role)|current_setting)\([^()]*\))', 'g'
        ) m (found)
    ),
    readings as (
        select distinct t.relation, t.name as live, r.key as source
        from sync_internal.tables t
        cross join lateral sync.policy_reads(t.relation) a
        cross join lateral jsonb_each(a.reads) r
    )
    select distinct
        p.relation::regclass as relation, p.policy,
        format('%s is called for each row', p.call) as reason,
        format('write (select %s)', p.call) as fix
    from per_row p
    union all
    select
        r.relation::regclass, null,
        format('its policies read %s, of which %s rows are read at a time', r.source, s.seq_tup_read / s.seq_scan),
        format('is there an index on the columns that the policies compare in %s?', r.source)
    from readings r
    join pg_catalog.pg_stat_all_tables s on s.relid = to_regclass(r.source)
    where s.seq_scan > 100 and s.seq_tup_read / s.seq_scan > 1000
    union all
    select
        p.relation::regclass, p.policy,
        format('%s takes %s ms at a time', f.funcid::regprocedure, round((f.total_time / f.calls)::numeric, 2)),
        'make it quicker, or call it once a query'
    from policies p
    join pg_catalog.pg_depend d
        on d.classid = 'pg_catalog.pg_policy'::regclass and d.refclassid = 'pg_catalog.pg_proc'::regclass
        and d.objid = (select o.oid from pg_catalog.pg_policy o where o.polrelid = p.relation and o.polname = p.policy)
    join pg_catalog.pg_stat_user_functions f on f.funcid = d.refobjid
    where f.calls > 100 and f.total_time / f.calls > 1
$$;

comment on function sync.slow_policies() is 'SELECT policies that cost more than they need, and what to do.';
