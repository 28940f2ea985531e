-- Writing the functions that lead from a table's wire name to its code, statically, one per role and purpose.

-- Code that goes by a name, by halves: the time it takes hardly grows with the number of names, of which each that is
-- compared costs at the start of every transaction. p_branches: {name: code}. p_none: what is done for any other.
create or replace function sync_internal.decision(p_subject text, p_branches jsonb, p_none text)
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_names constant text[] := array(select k.name from jsonb_object_keys(p_branches) k (name) order by k.name collate "C");
    v_middle constant text := v_names[cardinality(v_names) / 2 + 1];
begin
    return case cardinality(v_names)
        when 0 then p_none
        when 1 then format(
            E'if %s = %L then\n%s\nelse\n%s\nend if;', p_subject, v_middle, p_branches ->> v_middle, p_none
        )
        else format(
            E'if %1$s collate "C" < %2$L then\n%3$s\nelse\n%4$s\nend if;', p_subject, v_middle,
            sync_internal.decision(
                p_subject, p_branches - v_names[cardinality(v_names) / 2 + 1:], p_none
            ),
            sync_internal.decision(p_subject, p_branches - v_names[:cardinality(v_names) / 2], p_none)
        )
    end;
end
$$;

comment on function sync_internal.decision(text, jsonb, text) is 'Code that goes by a name.';

-- A function that goes by the wire name it is given first. p_branches: {name: code}. p_none: what is done for any other.
create or replace function sync_internal.create_dispatch(
    p_name text, p_arguments text, p_returns text, p_volatility text, p_branches jsonb, p_none text, p_role text
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    execute format(
        'create or replace function sync_internal.%I(%s) returns %s language plpgsql %s '
        'parallel unsafe security invoker as %L',
        p_name, p_arguments, p_returns, p_volatility,
        format(
            E'\nbegin\n%s\nend\n',
            sync_internal.decision(split_part(p_arguments, ' ', 1), coalesce(p_branches, '{}'), p_none)
        )
    );
    execute format('comment on function sync_internal.%I is %L', p_name, 'Generated: leads to the code of a table.');
    execute format('revoke execute on function sync_internal.%I from public', p_name);
    execute format('grant execute on function sync_internal.%I to %s', p_name, p_role);
end
$$;

comment on function sync_internal.create_dispatch(text, text, text, text, jsonb, text, text)
is 'Creates one dispatching function.';

create or replace function sync_internal.generate_dispatch()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_role text;
    v_purpose record;
    -- The dispatch of each role is open to all three: a CASE needs the right to call every branch. The code it leads to
    -- is not.
    v_roles constant text := 'anon, authenticated, service_role, rowcast_gateway';
begin
    perform sync_internal.create_dispatch(
        'traits_of', 'p_table text', 'sync_internal.traits', 'immutable',
        (
            select jsonb_object_agg(
                t.name, format(
                    'return case when %s then (%L, %s, %L, %L, %L)::sync_internal.traits end;', sync_internal.shape_condition(t), t.id_type, t.depth,
                    t.foreign_triggers and not t.batch, t.foreign_triggers,
                    t.hard_delete and t.soft_delete is null
                )
            )
            from sync_internal.tables t
        ),
        $none$perform sync_internal.refuse(400, 'unknown_table', 'There is no such table');$none$, v_roles
    );
    perform sync_internal.create_dispatch(
        'required_keys', 'p_table text', 'text[]', 'immutable',
        (
            select jsonb_object_agg(t.name, format(
                'return %L;',
                array(
                    select c.name from sync_internal.columns c
                    where c.table_id = t.table_id and not c.nullable and c.default_expression is null and not c.computed
                        and not c.server_owned and c.column_name not in (t.id_column, t.version_column)
                    order by c.position
                )
            ))
            from sync_internal.tables t
        ),
        'return null;', v_roles
    );

    -- Stable: where it can be folded, the statements it stands in are planned at every call.
    perform sync_internal.create_dispatch(
        'id_type', 'p_table text', 'text', 'stable',
        (
            select jsonb_object_agg(t.name, format('return %L;', t.id_type))
            from sync_internal.tables t
        ),
        'return null;', v_roles
    );

    -- Whose ids may stand in a key.
    perform sync_internal.create_dispatch(
        'key_places', 'p_table text', 'jsonb', 'stable',
        (
            select jsonb_object_agg(t.name, format(
                'return %L;',
                (
                    select jsonb_object_agg(c.name, jsonb_strip_nulls(jsonb_build_object(
                        'kind', c.kind,
                        'parent', (select p.name from sync_internal.tables p where p.table_id = c.parent_id)
                    )))
                    from sync_internal.columns c where c.table_id = t.table_id
                )
            ))
            from sync_internal.tables t
        ),
        'return null;', v_roles
    );

    -- Constants that are inlined: asked in every transaction.
    for v_purpose in
        select *
        from (values
            ('rereads', 'rows stand differently after its triggers',
                (select array_agg(t.name order by t.name) from sync_internal.tables t where t.foreign_triggers)),
            ('runs_alone', 'its triggers must not share a commit',
                (
                    select array_agg(t.name order by t.name)
                    from sync_internal.tables t
                    where t.foreign_triggers and not t.batch
                ))
        ) p (name, comment, names)
    loop
        execute format(
            'create or replace function sync_internal.%I(p_table text) returns boolean language sql immutable '
            'parallel safe security invoker as %L',
            v_purpose.name,
            case
                when v_purpose.names is null then 'select false'
                else format('select coalesce(p_table = any (%L::text[]), false)', v_purpose.names)
            end
        );
        execute format(
            'comment on function sync_internal.%I(text) is %L', v_purpose.name, 'Generated: whether ' || v_purpose.comment
        );
        execute format('revoke execute on function sync_internal.%I(text) from public', v_purpose.name);
        execute format('grant execute on function sync_internal.%I(text) to %s', v_purpose.name, v_roles);
    end loop;

    -- Whether any constraint can be deferred at all: asking for it costs two statements in each transaction.
    execute format(
        'create or replace function sync_internal.defers() returns boolean language sql immutable parallel safe '
        'security invoker as %L',
        format('select %L::boolean', exists (select from pg_catalog.pg_constraint c where c.condeferrable))
    );
    comment on function sync_internal.defers() is 'Generated: whether any constraint can be deferred.';
    execute format('grant execute on function sync_internal.defers() to %s', v_roles);

    update sync_internal.callables c
    set signature = sync_internal.function_signature(to_regprocedure(c.function))
    where to_regprocedure(c.function) is not null;

    foreach v_role in array array['anon', 'authenticated', 'service_role'] loop
        for v_purpose in
            select *
            from (values
                ('check', 'p_op jsonb, p_creating boolean', 'text', 'p_op, p_creating',
                    $c$perform sync_internal.refuse(400, 'unknown_table', 'There is no such table');$c$),
                ('insert', 'p_id text, p_ops jsonb', 'boolean', 'p_id, p_ops', 'return null;'),
                ('update', 'p_id text, p_at jsonb, p_ops jsonb, p_from integer, p_to integer, p_want boolean',
                    'sync_internal.written', 'p_id, p_at, p_ops, p_from, p_to, p_want', 'return null;'),
                ('several', 'p_ids text[], p_starts integer[], p_ops jsonb, p_want boolean',
                    'sync_internal.written[]', 'p_ids, p_starts, p_ops, p_want', 'return null;'),
                ('delete', 'p_id text', 'bigint', 'p_id', 'return null;'),
                ('lock', 'p_id text', 'bigint', 'p_id', 'return null;'),
                ('read', 'p_id text', 'sync_internal.written', 'p_id', 'return null;'),
                ('clash', 'p_id text, p_constraint text, p_ops jsonb, p_creating boolean',
                    'boolean', 'p_id, p_constraint, p_ops, p_creating',
                    'return false;')
            ) p (name, arguments, result, call, missing)
        loop
            perform sync_internal.create_dispatch(
                format('%s_%s', v_purpose.name, v_role), 'p_table text, ' || v_purpose.arguments, v_purpose.result,
                case v_purpose.name when 'check' then 'stable' else 'volatile' end,
                (
                    select jsonb_object_agg(
                        t.name, format(
                            'return sync_internal.%I(%s);',
                            format('%s_%s_%s', v_purpose.name, t.name, v_role), v_purpose.call
                        )
                    )
                    from sync_internal.tables t
                    where exists (
                        select from pg_catalog.pg_proc p
                        where p.pronamespace = 'sync_internal'::regnamespace
                            and p.proname = format('%s_%s_%s', v_purpose.name, t.name, v_role)
                    )
                ),
                v_purpose.missing, v_roles
            );
        end loop;

        -- Rows of given ids that the caller may read. Stable: they belong to the snapshot of the asking statement.
        perform sync_internal.create_dispatch(
            format('rows_%s', v_role), 'p_table text, p_ids text[], p_records boolean',
            'table (id text, version bigint, class text, record text)', 'stable',
            (
                select jsonb_object_agg(
                    t.name, format(
                        -- Asked beforehand: a plan made for these ids is made at every call.
                        E'if %7$s then\n'
                        'return query select t.%1$I::text, %2$s, %3$s, case when p_records then %4$s end from %5$s t '
                        'where t.%1$I = any (p_ids::%6$s[]);\nend if;',
                        t.id_column,
                        case
                            when g.readable && array[t.version_column] then format('t.%I::bigint', t.version_column)
                            else '0::bigint'
                        end,
                        case
                            when g.classes <@ g.readable then sync_internal.class_expression(g.columns, 't') else 'null'
                        end,
                        sync_internal.record_expression(g.readable_columns, 't'), t.relation, sync_internal.id_sql_type(t),
                        sync_internal.shape_condition(t)
                    )
                )
                from sync_internal.tables t
                cross join lateral (
                    select
                        array_agg((c."column").column_name) filter (where c.readable) as readable,
                        array_agg(c."column") filter (where c.readable) as readable_columns,
                        coalesce(
                            array_agg((c."column").column_name) filter (where (c."column").policy), '{}'
                        ) as classes,
                        array_agg(c."column") as columns
                    from sync_internal.granted_columns(t.table_id, v_role) c
                ) g
                where t.id_column = any (g.readable)
            ),
            'return;', v_roles
        );

        -- Those of given ids that the caller may read, for many users in turn.
        perform sync_internal.create_dispatch(
            format('seen_%s', v_role), 'p_table text, p_ids text[]', 'text[]', 'stable',
            (
                select jsonb_object_agg(
                    t.name, format(
                        'return array(select t.%1$I::text from %2$s t where t.%1$I = any (p_ids::%3$s[]));',
                        t.id_column, t.relation, sync_internal.id_sql_type(t)
                    )
                )
                from sync_internal.tables t
                where has_column_privilege(v_role, t.relation, t.id_column, 'select')
            ),
            $none$return '{}';$none$, v_roles
        );

        -- The classes of rows that the caller may read under each value of a column; '' is the whole table.
        perform sync_internal.create_dispatch(
            format('classes_%s', v_role), 'p_table text, p_column text, p_values text[]',
            'table (n bigint, classes text[])', 'stable',
            (
                select jsonb_object_agg(
                    t.name, sync_internal.classes_branch(t, g.columns, g.classes <@ g.readable)
                )
                from sync_internal.tables t
                cross join lateral (
                    select
                        array_agg((c."column").column_name) filter (where c.readable) as readable,
                        coalesce(
                            array_agg((c."column").column_name) filter (where (c."column").policy), '{}'
                        ) as classes,
                        array_agg(c."column") as columns
                    from sync_internal.granted_columns(t.table_id, v_role) c
                ) g
                where t.id_column = any (g.readable)
            ),
            'return;', v_roles
        );

        -- What reading needs to know of a table.
        perform sync_internal.create_dispatch(
            format('meta_%s', v_role), 'p_table text', 'jsonb', 'immutable',
            (
                select jsonb_object_agg(
                    t.name, format(
                        'return case when %s then %L::jsonb end;',
                        sync_internal.shape_condition(t), sync_internal.table_meta(t.table_id, v_role)
                    )
                )
                from sync_internal.tables t
            ),
            'return null;', v_roles
        );

        -- Functions of the application. Arguments are named on the wire; a left out one takes its default.
        perform sync_internal.create_dispatch(
            format('call_%s', v_role), 'p_fn text, p_args jsonb', 'jsonb', 'volatile',
            (
                select jsonb_object_agg(c.name, sync_internal.call_branch(c))
                from sync_internal.callables c
                where has_function_privilege(v_role, to_regprocedure(c.function), 'execute')
            ),
            $none$perform sync_internal.refuse(400, 'unknown_function', 'There is no such function');$none$, v_roles
        );
    end loop;
end
$$;

comment on function sync_internal.generate_dispatch() is 'Makes the functions that lead from a wire name to its code.';

-- The branch of one callable function.
create or replace function sync_internal.call_branch(p_callable sync_internal.callables)
returns text
language plpgsql
stable
parallel safe
security invoker
-- What the text of a default depends on.
set datestyle = 'ISO, YMD'
set intervalstyle = 'iso_8601'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
set standard_conforming_strings = on
as $$
declare
    v_function pg_catalog.pg_proc;
    v_names text[];
    v_arguments text;
    v_required text[];
begin
    select * into strict v_function from pg_catalog.pg_proc p where p.oid = to_regprocedure(p_callable.function);
    select
        coalesce(array_agg(a.name order by a.n), '{}'),
        coalesce(
            array_agg(a.name order by a.n)
                filter (where a.n <= v_function.pronargs - v_function.pronargdefaults), '{}'
        ),
        string_agg(
            format(
                '%s => %s', quote_ident(v_function.proargnames[a.n]),
                case
                    when a.n > v_function.pronargs - v_function.pronargdefaults then format(
                        'case when p_args ? %L then (%s)::%s else %s end', a.name, a.value, a.sql_type,
                        pg_get_function_arg_default(v_function.oid, a.n)
                    )
                    else format('(%s)::%s', a.value, a.sql_type)
                end
            ), ', ' order by a.n
        )
    into v_names, v_required, v_arguments
    from (
        select t.n::integer,
            sync_internal.wire_name(regexp_replace(v_function.proargnames[t.n], '^p_', '')) as name,
            format_type(t.type, null) as sql_type,
            sync_internal.decode_expression(
                (0, 0::smallint, '', '', case k.kind when 'other' then 'json' else k.kind end,
                format_type(t.type, null),
                k.element_kind, true, null, false, false, false, false, false, null, null)::sync_internal.columns,
                format(
                    '(p_args -> %L)', sync_internal.wire_name(regexp_replace(v_function.proargnames[t.n], '^p_', ''))
                )
            ) as value
        from unnest(v_function.proargtypes::oid[]) with ordinality t (type, n)
        cross join lateral sync_internal.type_kind(t.type) k
    ) a;
    return format(
        E'perform sync_internal.check_callable(%L, %L);\n'
        'perform sync_internal.check_arguments(p_args, %L, %L);\nreturn %s;',
        p_callable.function, p_callable.signature, v_names, v_required,
        case
            when v_function.prorettype = 'void'::regtype
                then format(
                    'to_jsonb(nullif(%s.%s(%s)::text, ''''))',
                    v_function.pronamespace::regnamespace, quote_ident(v_function.proname), coalesce(v_arguments, '')
                )
            else format(
                'to_jsonb(%s.%s(%s))',
                v_function.pronamespace::regnamespace, quote_ident(v_function.proname), coalesce(v_arguments, '')
            )
        end
    );
end
$$;

comment on function sync_internal.call_branch(sync_internal.callables) is 'The branch of one callable function.';

create or replace function sync_internal.check_arguments(p_args jsonb, p_names text[], p_required text[])
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_name text;
begin
    if p_args - p_names <> '{}' then
        perform sync_internal.refuse(400, 'unknown_argument', 'The function takes no such argument');
    end if;
    foreach v_name in array p_required loop
        if not p_args ? v_name then
            perform sync_internal.refuse(400, 'required', 'An argument is missing', jsonb_build_object('key', v_name));
        end if;
    end loop;
end
$$;

comment on function sync_internal.check_arguments(jsonb, text[], text[])
is 'Whether a call names the arguments its function takes.';
grant execute on function sync_internal.check_arguments(jsonb, text[], text[]) to anon, authenticated, service_role;

-- The branch of one table: a query per column that keys may name. More than 64 classes, or more than 5000 rows to look
-- at, are 65 classes: too many. Where the policies read nothing but the column itself, all rows under a value are of
-- one class, and the first tells it. p_known: whether the role may read the columns of the
-- class; where not, every row counts as of one class.
create or replace function sync_internal.classes_branch(
    p_table sync_internal.tables, p_columns sync_internal.columns[], p_known boolean
)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select sync_internal.decision(
        'p_column', jsonb_object_agg(
            k.name, format(
                'return query select v.n, (select '
                'case when sum(g.count) > 5000 then array_fill(''''::text, ''{65}'') '
                'else coalesce((array_agg(g.class))[:65], ''{}'') end from ('
                'select r.class, count(*) from (select %s as class from %s t%s) r group by 1) g)'
                ' from unnest(p_values) with ordinality v (value, n);',
                case when p_known then sync_internal.class_expression(p_columns, 't') else quote_literal('') end,
                p_table.relation, k.condition
            )
        ), 'return;'
    )
    from (
        select '' as name, ' limit 5001' as condition
        where p_table.whole_table
        union all
        select ':', format(' where t.%I = v.value::%s limit 5001', p_table.id_column, sync_internal.id_sql_type(p_table))
        union all
        select c.column_name, format(
            case
                -- A range and its order: for one row of an equality the whole table may be looked through.
                when p_known and l.tells then ' where t.%1$I between v.value::%2$s and v.value::%2$s order by t.%1$I limit 1'
                else ' where t.%1$I = v.value::%2$s limit 5001'
            end,
            c.column_name, c.sql_type
        )
        from unnest(p_columns) c
        cross join lateral (
            -- Types of which what is equal is the same.
            select c.kind in ('uuid', 'integer', 'bigint', 'boolean', 'date', 'timestamptz', 'timestamp', 'enum')
                and not exists (select from unnest(p_columns) o where o.policy and o.position <> c.position) as tells
        ) l
        where c.topic
    ) k
$$;

comment on function sync_internal.classes_branch(sync_internal.tables, sync_internal.columns[], boolean)
is 'The branch of one table in classes_<role>.';

create or replace function sync_internal.id_sql_type(p_table sync_internal.tables)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select case
        when p_table.id_type = 'bigint' then 'bigint'
        else (
            select c.sql_type from sync_internal.columns c
            where c.table_id = p_table.table_id and c.column_name = p_table.id_column
        )
    end
$$;

comment on function sync_internal.id_sql_type(sync_internal.tables) is 'The SQL type of a live table''s ids.';
