-- A transaction's operations, gathered by record and put in order: calls stand where they were sent and split the
-- rest; between them inserts come first, parents before children, then updates in the order of (table, id), which is
-- the one lock order, then hard deletes, children first. A create becomes one set per key. op_numbers says from which
-- operation each came, counted from 0.
create or replace function sync_internal.plan_groups(p_operations jsonb)
returns sync_internal.step[]
language sql
stable
parallel safe
security invoker
as $$
    with
    operations as (
        select o.op, o.n::integer - 1 as n,
            count(*) filter (where o.op ->> 'type' = 'call') over (order by o.n) as segment
        from jsonb_array_elements(p_operations) with ordinality o (op, n)
    ),
    singles as (
        select o.op, o.n, 0 as m, o.segment from operations o where o.op ->> 'type' not in ('create', 'call')
        union all
        select
            jsonb_build_object(
                'type', 'set', 'table', o.op -> 'table', 'id', o.op -> 'id',
                'key', jsonb_build_array(m.key), 'value', m.value
            ),
            o.n, m.n::integer, o.segment
        from operations o
        cross join lateral (
            select e.key, e.value, row_number() over () as n
            from (
                select 'id' as key, coalesce(o.op -> 'value' -> 'id', o.op -> 'id') as value
                union all
                select v.key, v.value from jsonb_each(o.op -> 'value') v where v.key not in ('id', 'version')
            ) e
        ) m
        where o.op ->> 'type' = 'create'
    ),
    groups as (
        select s.op ->> 'table' as name, s.op ->> 'id' as id, s.segment, min(s.n) as first,
            jsonb_agg(s.op order by s.n, s.m) as ops, array_agg(s.n order by s.n, s.m) as op_numbers,
            bool_or(s.op ->> 'type' = 'set' and s.op -> 'key' in ('"id"', '["id"]')) as creating,
            bool_or(s.op ->> 'type' = 'delete') and (sync_internal.traits_of(s.op ->> 'table')).hard_delete as removing,
            (sync_internal.traits_of(s.op ->> 'table')).depth as depth
        from singles s
        group by s.segment, s.op ->> 'table', s.op ->> 'id'
    ),
    steps as (
        select g.name, g.id, g.ops, g.op_numbers, g.creating, g.removing, null::jsonb as call, g.segment, g.first,
            case when g.creating then 1 when g.removing then 3 else 2 end as phase,
            case when g.creating then g.depth when g.removing then - g.depth end as depth
        from groups g
        union all
        select null, null, null, array[o.n], false, false, o.op, o.segment, o.n, 0, 0
        from operations o where o.op ->> 'type' = 'call'
    )
    select array_agg(
        (s.name, s.id, s.ops, s.op_numbers, s.creating, s.removing, s.call)::sync_internal.step
        order by s.segment, s.phase, s.depth,
            case when s.phase = 1 then s.first end, s.name collate "C", s.id collate "C"
    )
    from steps s
$$;

comment on function sync_internal.plan_groups(jsonb)
is 'A transaction''s operations, gathered by record and put in order.';
grant execute on function sync_internal.plan_groups(jsonb) to anon, authenticated, service_role;
