-- The closure of what the SELECT policies of tables read, per role: policies, the functions they call, the tables and
-- views these read, the SELECT policies of those tables, and so on. It follows whom PostgreSQL asks in each place: a
-- definer function runs as its owner; a view's tables are read as the view's owner, unless it is security_invoker, while
-- the functions in it still run as the caller; who bypasses row level security reads without policies.

-- Whether the policies of a table bind a role.
create or replace function sync_internal.is_bound(p_table oid, p_role oid)
returns boolean
language sql
stable
parallel safe
security invoker
as $$
    select c.relrowsecurity and not r.rolsuper and not r.rolbypassrls
        and (c.relforcerowsecurity or not pg_has_role(p_role, c.relowner, 'usage'))
    from pg_catalog.pg_class c, pg_catalog.pg_roles r
    where c.oid = p_table and r.oid = p_role
$$;

comment on function sync_internal.is_bound(oid, oid) is 'Whether the policies of a table bind a role.';

-- A table and all its partitions and inheritance children: each can be written by itself.
create or replace function sync_internal.family(p_table oid)
returns table (relation regclass)
language sql
stable
parallel safe
security invoker
as $$
    with recursive family (oid) as (
        select p_table
        union
        select i.inhrelid from family f join pg_catalog.pg_inherits i on i.inhparent = f.oid
    )
    select f.oid::regclass from family f
$$;

comment on function sync_internal.family(oid) is 'A table and all its partitions and inheritance children.';

-- Why what a relation holds cannot be followed; null where it can.
create or replace function sync_internal.judge_relation(p_relation oid, p_columns smallint[])
returns text
language sql
stable
parallel safe
security invoker
as $$
    select case
        when n.nspname in ('pg_catalog', 'information_schema', 'pg_toast') then 'is of the system catalogue'
        when c.relkind = 'm' then 'is a materialised view: it changes when it is refreshed'
        when c.relkind = 'f' then 'is a foreign table: its changes are not seen here'
        when c.relkind not in ('r', 'p', 'v') then 'is no table'
        when c.relpersistence = 't' then 'is a temporary table'
        when c.relpersistence = 'u' then 'is unlogged: a crash empties it'
        when c.relkind <> 'v' and exists (
            select from pg_catalog.pg_inherits i where i.inhrelid = c.oid
        ) then 'is a part of another table: changes made through that one would not be noticed'
        when exists (
            select from pg_catalog.pg_attribute a
            where a.attrelid = c.oid and a.attnum = any (p_columns) and a.attgenerated = 'v'
        ) then 'has a virtual generated column among those read'
        when exists (
            select from sync_internal.family(c.oid) f join pg_catalog.pg_class d on d.oid = f.relation
            where d.relkind not in ('r', 'p', 'v') or d.relpersistence <> 'p'
        ) then 'has a part that is no ordinary table'
    end
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = p_relation
$$;

comment on function sync_internal.judge_relation(oid, smallint[]) is 'Why what a relation holds cannot be followed.';

-- One row per table and role. own: columns of the table that its own policies read (all of them, where they read whole
-- rows); reads: {relation oid: [columns]} of every other table, and of the table itself where the policies read it
-- again; views and calls: what lies between; problems: why equal rows may be seen differently though nothing of this has
-- changed, and empty where that cannot be.
create or replace function sync_internal.closures(p_tables regclass[], p_roles name[])
returns table (relation regclass, role name, own smallint[], reads jsonb, views oid[], calls oid[], problems text[])
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    -- Trees are read once, whatever number of tables lead to them.
    v_judged jsonb := '{}';
    v_facts jsonb;
    v_item record;
    v_policy record;
    v_read record;
    v_function record;
    v_problem text;
    v_key text;
    v_own integer[];
    -- What is still to be looked at: kind, object, whose rights relations are read with, and as whom functions run.
    v_kinds text[];
    v_oids oid[];
    v_readers oid[];
    v_runners oid[];
    v_seen jsonb;
    v_at integer;
    v_as oid;
begin
    foreach relation in array p_tables loop
        foreach role in array p_roles loop
            v_own := '{}';
            reads := '{}';
            views := '{}';
            calls := '{}';
            problems := '{}';
            v_seen := '{}';
            v_as := (select r.oid from pg_catalog.pg_roles r where r.rolname = role);
            v_kinds := array['policies'];
            v_oids := array[relation::oid];
            v_readers := array[v_as];
            v_runners := array[v_as];
            if current_setting('server_version_num')::integer / 10000 not between 15 and 18 then
                problems := array['expressions of this version of PostgreSQL are not known'];
            end if;
            v_problem := sync_internal.judge_relation(relation, '{}');
            if v_problem is not null then
                problems := problems || format('%s %s', relation, v_problem);
            elsif exists (
                select from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
                where i.inhparent = relation and not c.relispartition
            ) then
                problems := problems || format('%s has inheritance children, which are not captured', relation);
            end if;

            v_at := 0;
            while v_at < cardinality(v_kinds) loop
                v_at := v_at + 1;
                v_key := concat_ws(' ', v_kinds[v_at], v_oids[v_at], v_readers[v_at], v_runners[v_at]);
                continue when v_seen ? v_key;
                v_seen := v_seen || jsonb_build_object(v_key, true);
                -- The trees of this object, and as whom what they name is read and run.
                for v_item in
                    select t.what, t.key, t.tree, t.reader, t.runner, t.volatility
                    from (
                        select format('policy %I on %s', p.polname, p.polrelid::regclass) as what,
                            'policy ' || p.oid as key, p.polqual::text as tree, v_readers[v_at] as reader,
                            v_runners[v_at] as runner, null::text as volatility
                        from pg_catalog.pg_policy p
                        where v_kinds[v_at] = 'policies' and p.polrelid = v_oids[v_at] and p.polcmd in ('r', '*')
                            and p.polqual is not null and sync_internal.is_bound(v_oids[v_at], v_readers[v_at])
                            and exists (
                                select from unnest(p.polroles) o (oid)
                                where o.oid = 0 or pg_has_role(v_readers[v_at], o.oid, 'usage')
                            )
                        union all
                        select 'function ' || sync_internal.function_name(f.oid), 'function ' || f.oid,
                            f.prosqlbody::text,
                            case when f.prosecdef then f.proowner else v_runners[v_at] end,
                            case when f.prosecdef then f.proowner else v_runners[v_at] end, f.provolatile::text
                        from pg_catalog.pg_proc f
                        where v_kinds[v_at] = 'function' and f.oid = v_oids[v_at]
                        union all
                        -- Defaults of arguments are not written into the call.
                        select 'a default of ' || sync_internal.function_name(f.oid), 'defaults ' || f.oid,
                            f.proargdefaults::text, v_readers[v_at], v_runners[v_at], null
                        from pg_catalog.pg_proc f
                        where v_kinds[v_at] = 'function' and f.oid = v_oids[v_at] and f.proargdefaults is not null
                        union all
                        select format('view %s', w.ev_class::regclass), 'view ' || w.oid, w.ev_action::text,
                            case when s.invoker then v_runners[v_at] else c.relowner end, v_runners[v_at], null
                        from pg_catalog.pg_rewrite w
                        join pg_catalog.pg_class c on c.oid = w.ev_class
                        cross join lateral (
                            select coalesce(bool_or(x.option_value::boolean), false) as invoker
                            from pg_options_to_table(c.reloptions) x where x.option_name = 'security_invoker'
                        ) s
                        where v_kinds[v_at] = 'view' and w.ev_class = v_oids[v_at] and w.ev_type = '1'
                    ) t
                    order by t.key
                loop
                    if not v_judged ? v_item.key then
                        v_judged := v_judged
                            || jsonb_build_object(v_item.key, sync_internal.judge_tree(v_item.tree));
                    end if;
                    v_facts := v_judged -> v_item.key;
                    problems := problems || array(
                        select format('%s %s', v_item.what, p.problem)
                        from jsonb_array_elements_text(v_facts -> 'problems') p (problem)
                    );
                    calls := calls || array(select c.oid::oid from jsonb_array_elements_text(v_facts -> 'calls') c (oid));
                    -- The planner may keep the answer of an immutable function in a plan.
                    if v_item.volatility = 'i' and (
                        (v_facts ->> 'moving')::boolean or v_facts -> 'reads' <> '{}'
                    ) then
                        problems := problems || format('%s is marked immutable, which it is not', v_item.what);
                    end if;
                    if v_kinds[v_at] = 'function' and v_item.volatility is not null then
                        select p.proconfig into v_function from pg_catalog.pg_proc p where p.oid = v_oids[v_at];
                        if exists (select from unnest(v_function.proconfig) s (setting) where s.setting !~ '^search_path=')
                            then
                            problems := problems || format('%s runs under settings of its own', v_item.what);
                        end if;
                        if not sync_internal.returns_as_declared(v_oids[v_at], v_facts -> 'result') then
                            problems := problems || format(
                                '%s converts its answer as it returns: cast it in the body', v_item.what
                            );
                        end if;
                    end if;
                    if v_at = 1 then
                        v_own := v_own || array(
                            select o.attnum::integer from jsonb_array_elements_text(v_facts -> 'own') o (attnum)
                        );
                    end if;
                    for v_read in
                        select r.key::oid as oid, c.relkind,
                            array(
                                select a.attnum::smallint
                                from jsonb_array_elements_text(nullif(r.value, 'null')) a (attnum)
                            ) as columns
                        from jsonb_each(v_facts -> 'reads') r
                        join pg_catalog.pg_class c on c.oid = r.key::oid
                        -- A view's rule names the view itself.
                        where not (v_kinds[v_at] = 'view' and r.key::oid = v_oids[v_at])
                    loop
                        v_problem := sync_internal.judge_relation(v_read.oid, v_read.columns);
                        if v_problem is not null then
                            problems := problems
                                || format('%s reads %s, which %s', v_item.what, v_read.oid::regclass, v_problem);
                        elsif v_read.relkind = 'v' then
                            views := views || v_read.oid;
                            v_kinds := v_kinds || text 'view';
                            v_oids := v_oids || v_read.oid;
                            v_readers := v_readers || v_item.reader;
                            v_runners := v_runners || v_item.runner;
                        else
                            reads := reads || jsonb_build_object(v_read.oid::text, (
                                select coalesce(jsonb_agg(distinct u.attnum), '[]')
                                from (
                                    select a.attnum::integer as attnum from unnest(v_read.columns) a (attnum)
                                    union
                                    select a.attnum::integer
                                    from jsonb_array_elements_text(reads -> v_read.oid::text) a (attnum)
                                ) u
                            ));
                            v_kinds := v_kinds || text 'policies';
                            v_oids := v_oids || v_read.oid;
                            v_readers := v_readers || v_item.reader;
                            v_runners := v_runners || v_item.runner;
                        end if;
                    end loop;
                    for v_read in
                        select f.oid::oid as oid from jsonb_array_elements_text(v_facts -> 'follow') f (oid)
                    loop
                        v_kinds := v_kinds || text 'function';
                        v_oids := v_oids || v_read.oid;
                        v_readers := v_readers || v_item.reader;
                        v_runners := v_runners || v_item.runner;
                    end loop;
                    -- The columns that a table's own policies read count as read of it.
                    if v_kinds[v_at] = 'policies' and v_at > 1 then
                        reads := reads || jsonb_build_object(v_oids[v_at]::text, (
                            select coalesce(jsonb_agg(distinct u.attnum), '[]')
                            from (
                                select o.attnum::integer as attnum
                                from jsonb_array_elements_text(v_facts -> 'own') o (attnum)
                                union
                                select a.attnum::integer
                                from jsonb_array_elements_text(reads -> v_oids[v_at]::text) a (attnum)
                            ) u
                        ));
                    end if;
                end loop;
            end loop;

            own := array(
                select a.attnum from pg_catalog.pg_attribute a
                where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
                    and (a.attnum = any (v_own) or 0 = any (v_own))
                order by a.attnum
            );
            if reads ? relation::oid::text then
                reads := reads || jsonb_build_object(relation::oid::text, (
                    select jsonb_agg(distinct u.attnum)
                    from (
                        select a.attnum::integer as attnum from unnest(own) a (attnum)
                        union
                        select a.attnum::integer
                        from jsonb_array_elements_text(reads -> relation::oid::text) a (attnum)
                    ) u
                ));
            end if;
            problems := array(select distinct p.problem from unnest(problems) p (problem) order by 1);
            calls := array(select distinct c.oid from unnest(calls) c (oid) order by 1);
            views := array(select distinct w.oid from unnest(views) w (oid) order by 1);
            return next;
        end loop;
    end loop;
end
$$;

comment on function sync_internal.closures(regclass[], name[])
is 'The closure of what the SELECT policies of tables read, per role.';

-- The roles Rowcast serves.
create or replace function sync_internal.served_roles()
returns name[]
language sql
immutable
parallel safe
security invoker
as $$
    select array['anon', 'authenticated', 'service_role']::name[]
$$;

comment on function sync_internal.served_roles() is 'The roles Rowcast serves.';
