-- What the SELECT policies of a table read, per role, and whether their answer can be kept: for whom it can, rows that
-- agree on `columns` are seen by the same users until something in `reads` changes.
--
-- For administrators. cacheable: whether the relay may keep answers. reasons: why not, each naming the policy, function,
-- operator or table it is about. columns: those of the table itself; reads: {table: [columns]} of others, and of the
-- table itself where its policies read other rows of it. p_role: null for all that Rowcast serves. Takes no locks.
create or replace function sync.policy_reads(p_table regclass, p_role name default null)
returns table (role name, cacheable boolean, reasons text[], columns name[], reads jsonb)
language sql
stable
parallel safe
security invoker
as $$
    select a.role, a.reasons = '{}', a.reasons,
        array(
            select t.attname from pg_catalog.pg_attribute t
            where t.attrelid = a.relation and t.attnum = any (a.own) order by t.attnum
        ),
        (
            select coalesce(jsonb_object_agg(
                r.key::oid::regclass::text, to_jsonb(sync_internal.column_names(r.key::oid, r.value))
            ), '{}')
            from jsonb_each(a.reads) r
        )
    from sync_internal.access_report(
        array[p_table], case when p_role is null then sync_internal.served_roles() else array[p_role] end
    ) a
$$;

comment on function sync.policy_reads(regclass, name)
is 'What the SELECT policies of a table read, and whether their answers can be kept.';

create or replace function sync_internal.column_names(p_relation oid, p_columns jsonb)
returns name[]
language sql
stable
parallel safe
security invoker
as $$
    select array(
        select a.attname
        from jsonb_array_elements_text(p_columns) c (attnum)
        join pg_catalog.pg_attribute a on a.attrelid = p_relation and a.attnum = c.attnum::integer
        order by a.attnum
    )
$$;

comment on function sync_internal.column_names(oid, jsonb) is 'The names of columns.';

-- Whether a table and all its parts carry triggers of Rowcast that fire for every writer. p_prefix: of their names;
-- p_version: the version trigger too.
create or replace function sync_internal.carries_triggers(p_table oid, p_prefix text, p_version boolean)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_part regclass;
    v_found text[];
begin
    for v_part in select f.relation from sync_internal.family(p_table) f loop
        v_found := array(
            select substr(g.tgname, length(p_prefix) + 1)
            from pg_catalog.pg_trigger g
            where g.tgrelid = v_part and starts_with(g.tgname, p_prefix)
                and strpos(
                    case substr(g.tgname, length(p_prefix) + 1) when 'truncate' then 'A' when 'replica' then 'RA' else 'OA' end,
                    g.tgenabled::text
                ) > 0
                and (select p.pronamespace from pg_catalog.pg_proc p where p.oid = g.tgfoid) = 'sync_internal'::regnamespace
        );
        if not v_found @> '{insert,update,delete,truncate,replica}' or p_version and not v_found @> '{version}' then
            return false;
        end if;
    end loop;
    return true;
end
$$;

comment on function sync_internal.carries_triggers(oid, text, boolean)
is 'Whether a table and all its parts carry triggers of Rowcast.';

-- The closures of tables with all that speaks against keeping answers: what the policies are like, and whether every
-- change of what they read would be noticed. Without JIT, which takes a second for what takes milliseconds.
create or replace function sync_internal.access_report(p_tables regclass[], p_roles name[])
returns table (relation regclass, role name, own smallint[], reads jsonb, reasons text[])
language sql
stable
parallel safe
security invoker
set jit = off
as $$
    with
    found as materialized (
        select c.*, t.table_id, t.relation::oid as table_oid
        from sync_internal.closures(p_tables, p_roles) c
        left join sync_internal.tables t on t.relation = c.relation
    ),
    -- What has to be heard of, once each, and what speaks against it.
    heard as materialized (
        select r.oid, t.table_id is not null and m.relation is null as by_feed,
            case
                when t.table_id is not null
                    then sync_internal.carries_triggers(r.oid, 'zzz_rowcast_', true)
                else true
            end and (
                t.table_id is not null and m.relation is null
                or w.watch_id is not null and sync_internal.carries_triggers(
                    r.oid, format('zzz_rowcast_watch_%s_', w.watch_id), false
                )
            ) as carried,
            w.column_names
        from (
            select distinct k.key::oid as oid from found f cross join lateral jsonb_object_keys(f.reads) k (key)
        ) r
        left join sync_internal.tables t on t.relation = r.oid
        left join sync_internal.memberships m on m.relation = r.oid
        left join sync_internal.watches w on w.relation = r.oid
    ),
    objections (relation, role, reason) as (
        select f.relation, f.role, p.problem from found f cross join lateral unnest(f.problems) p (problem)
        union all
        select f.relation, f.role, format('%s is not live', f.relation) from found f where f.table_id is null
        union all
        select f.relation, f.role,
            format('%1$s does not carry Rowcast''s triggers: select sync.refresh(%1$L)', f.relation::text)
        from found f
        where f.table_id is not null and not sync_internal.carries_triggers(f.relation, 'zzz_rowcast_', true)
        union all
        select f.relation, f.role, case
            when e.options -> 'exclude' ? a.attname
                then format('its policies read the column %I, which is excluded (p_exclude)', a.attname)
            when a.attgenerated = 'v'
                then format('its policies read the column %I, which is generated when it is read', a.attname)
            when c.policy is distinct from true or c.column_name <> a.attname
                or to_regtype(c.sql_type) is distinct from a.atttypid
                then format(
                    'its policies have come to read the column %I: select sync.refresh(%L)', a.attname, f.relation::text
                )
            else format(
                'its policies read the column %I, whose type %s has no text that is the same under all settings',
                a.attname, format_type(a.atttypid, null)
            )
        end
        from found f
        join sync_internal.tables e on e.table_id = f.table_id
        join pg_catalog.pg_attribute a on a.attrelid = f.relation and a.attnum = any (f.own)
        left join sync_internal.columns c on c.table_id = f.table_id and c.position = a.attnum
        where c.policy is distinct from true or c.column_name <> a.attname or a.attgenerated = 'v'
            or to_regtype(c.sql_type) is distinct from a.atttypid
            or sync_internal.exact_expression(a.atttypid, '') is null
        union all
        -- What was not known when the code was made is not in the fingerprint either.
        select f.relation, f.role, format(
            'its policies have come to read %s: select sync.refresh(%L)', o.oid::regclass, f.relation::text
        )
        from found f
        cross join lateral (
            select k.key::oid from jsonb_object_keys(f.reads) k (key) union select unnest(f.views)
        ) o (oid)
        where f.table_id is not null and not exists (
            select from sync_internal.reads r where r.table_id = f.table_id and r.relation = o.oid
        )
        union all
        select f.relation, f.role, format(
            'its policies have come to call %s: select sync.refresh(%L)',
            sync_internal.function_name(o.oid), f.relation::text
        )
        from found f
        cross join lateral unnest(f.calls) o (oid)
        where f.table_id is not null and not exists (
            select from sync_internal.policy_calls c where c.table_id = f.table_id and c.function = o.oid
        )
        union all
        select f.relation, f.role, format(
            'its policies read %s, which carries no triggers of Rowcast: its owner says select sync.refresh(%L)',
            h.oid::regclass, f.relation::text
        )
        from found f
        cross join lateral jsonb_each(f.reads) k
        join heard h on h.oid = k.key::oid
        where not h.carried
            or not h.by_feed and not (sync_internal.column_names(h.oid, k.value) <@ h.column_names)
    )
    select f.relation, f.role, f.own, f.reads,
        array(
            select distinct o.reason from objections o
            where o.relation = f.relation and o.role = f.role
            order by 1
        )
    from found f
    order by f.relation::text, f.role
$$;

comment on function sync_internal.access_report(regclass[], name[])
is 'The closures of tables with all that speaks against keeping answers.';

-- The columns of a table that its own SELECT policies read, for any of the roles Rowcast serves; all of them where one
-- reads whole rows.
create or replace function sync_internal.policy_columns(p_relation regclass)
returns smallint[]
language sql
stable
parallel safe
security invoker
as $$
    select array(
        select distinct o.attnum
        from sync_internal.closures(array[p_relation], sync_internal.served_roles()) c
        cross join lateral unnest(c.own) o (attnum)
        order by 1
    )
$$;

comment on function sync_internal.policy_columns(regclass)
is 'The columns of a table that its own SELECT policies read.';

-- Writes down what lies in the closure of a live table, for any role, and gives the columns of its own. What is written
-- here is what triggers and fingerprint cover.
create or replace function sync_internal.record_closure(p_table_id integer)
returns smallint[]
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_own smallint[] := '{}';
    v_closure record;
begin
    delete from sync_internal.reads r where r.table_id = p_table_id;
    delete from sync_internal.policy_calls c where c.table_id = p_table_id;
    for v_closure in
        select c.*
        from sync_internal.tables t
        cross join lateral sync_internal.closures(array[t.relation], sync_internal.served_roles()) c
        where t.table_id = p_table_id
    loop
        v_own := v_own || v_closure.own;
        insert into sync_internal.reads as r (table_id, relation, column_names)
        select p_table_id, k.key::oid, sync_internal.column_names(k.key::oid, k.value)
        from jsonb_each(v_closure.reads) k
        union all
        select p_table_id, w.oid, '{}' from unnest(v_closure.views) w (oid)
        on conflict (table_id, relation) do update
        set column_names = array(
                select distinct c.name
                from unnest(r.column_names || excluded.column_names) c (name)
                order by 1
            );
        insert into sync_internal.policy_calls (table_id, function)
        select p_table_id, f.oid from unnest(v_closure.calls) f (oid)
        on conflict do nothing;
    end loop;
    return v_own;
end
$$;

comment on function sync_internal.record_closure(integer) is 'Writes down the closure of a live table.';

-- The relay's door: for every live table and role whether answers may be kept, the table's own columns, and what ends
-- them. {"fingerprint", "tables": {name: {role: {"cacheable", "reasons", "columns": [keys], "shown": [keys], "reads":
-- {name: keys}}}}}. shown: what the role may select.
-- reads names tables as the feed does. A live table is heard of by its changes: a new or deleted record, a bulk or
-- truncate, or an update of one of the keys (null: of any). Any other table, and one with a membership, is named
-- schema.table, its keys are null, and it is heard of by changes of kind access. To be loaded again whenever the
-- fingerprint is another.
create or replace function sync.gateway_access()
returns jsonb
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return sync_internal.describe_access();
end
$$;

comment on function sync.gateway_access() is 'Whose access the relay may keep, and what ends it.';
grant execute on function sync.gateway_access() to rowcast_gateway;

create or replace function sync_internal.describe_access()
returns jsonb
language sql
stable
parallel safe
security invoker
set jit = off
as $$
    with report as materialized (
        select t.name, t.table_id, a.role, a.reasons, a.own, a.reads
        from sync_internal.access_report(
            array(select t.relation from sync_internal.tables t), sync_internal.served_roles()
        ) a
        join sync_internal.tables t on t.relation = a.relation
    )
    select jsonb_build_object(
        'fingerprint', sync_internal.fingerprint(),
        'tables', coalesce(jsonb_object_agg(n.name, n.roles), '{}')
    )
    from (
        select r.name, jsonb_object_agg(r.role, jsonb_build_object(
            'cacheable', r.reasons = '{}', 'reasons', to_jsonb(r.reasons),
            'columns', (
                select coalesce(jsonb_agg(c.name order by c.position), '[]')
                from sync_internal.columns c where c.table_id = r.table_id and c.position = any (r.own)
            ),
            'shown', (
                select coalesce(jsonb_agg(c.name order by c.position), '[]')
                from sync_internal.columns c
                join sync_internal.tables t on t.table_id = c.table_id
                where c.table_id = r.table_id and has_column_privilege(r.role, t.relation, c.position, 'select')
            ),
            'reads', (
                select coalesce(jsonb_object_agg(
                    case when h.by_feed then l.name else sync_internal.full_name(k.key::oid) end,
                    case when h.by_feed then sync_internal.wire_columns(l.table_id, k.value) end
                ), '{}')
                from jsonb_each(r.reads) k
                left join sync_internal.tables l on l.relation = k.key::oid
                cross join lateral (
                    select l.table_id is not null and not exists (
                        select from sync_internal.memberships m where m.relation = k.key::oid
                    ) as by_feed
                ) h
            )
        )) as roles
        from report r
        group by r.name
    ) n
$$;

comment on function sync_internal.describe_access() is 'The answer of sync.gateway_access.';

-- The keys of columns as the feed's patches carry them; null where one of them is not in patches, so that any update
-- counts.
create or replace function sync_internal.wire_columns(p_table_id integer, p_columns jsonb)
returns jsonb
language sql
stable
parallel safe
security invoker
as $$
    select case
        when count(*) = count(c.name) filter (where c.column_name <> t.version_column)
            then coalesce(jsonb_agg(c.name order by c.position), '[]')
    end
    from jsonb_array_elements_text(p_columns) a (attnum)
    join sync_internal.tables t on t.table_id = p_table_id
    left join sync_internal.columns c on c.table_id = p_table_id and c.position = a.attnum::integer
$$;

comment on function sync_internal.wire_columns(integer, jsonb) is 'The keys of columns as the feed carries them.';

-- The name of a table that is not live, as the feed carries it: always with its schema, so never a wire name.
create or replace function sync_internal.full_name(p_relation oid)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select format('%I.%I', n.nspname, c.relname)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = p_relation
$$;

comment on function sync_internal.full_name(oid) is 'The name of a table with its schema.';
