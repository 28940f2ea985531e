-- Writing the triggers' code: the version trigger, per row, and the capture triggers, per statement, which alone write
-- the feed.

-- The text that says what of a row the SELECT policies read; short rows as they are, others as a hash. It begins with
-- the columns' numbers: after a change of policies an older change must not pass for one of today's classes.
create or replace function sync_internal.class_expression(p_columns sync_internal.columns[], p_alias text)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select case
        when count(*) = 0 then ''''''
        when bool_and(c.kind in ('uuid', 'integer', 'bigint', 'boolean', 'date', 'timestamptz', 'timestamp', 'enum'))
            then format(
                '%L || row(%s)::text', string_agg(c.position::text, '.' order by c.position),
                string_agg(e.value, ', ' order by c.position)
            )
        else format(
            '%L || encode(sha256(convert_to(row(%s)::text, ''UTF8'')), ''hex'')',
            string_agg(c.position::text, '.' order by c.position) || ':', string_agg(e.value, ', ' order by c.position)
        )
    end
    from unnest(p_columns) c
    cross join lateral (
        select format('%s.%s', p_alias, sync_internal.quoted(c.column_name)) as plain
    ) p
    -- Not the same text under every writer's settings: two rows that differ must never have one class.
    cross join lateral (
        select coalesce(
            sync_internal.exact_expression(to_regtype(c.sql_type), p.plain), sync_internal.json_expression(c, p.plain)
        ) as value
    ) e
    where c.policy
$$;

comment on function sync_internal.class_expression(sync_internal.columns[], text)
is 'What of a row the SELECT policies read.';

-- An expression for exactly which value one is, whatever the session's settings; null where the type has none.
create or replace function sync_internal.exact_expression(p_type oid, p_value text)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select case
        when sync_internal.has_plain_text(b.oid) then p_value
        -- In hexadecimal whatever bytea_output says.
        when b.oid = 'bytea'::regtype then format('encode(%s, ''hex'')', p_value)
        when b.oid in ('date'::regtype, 'timestamptz'::regtype, 'timestamp'::regtype)
            then format('encode(%s_send(%s), ''hex'')', t.typname, p_value)
        when b.oid in ('real'::regtype, 'double precision'::regtype)
            then format('encode(float8send(%s::double precision), ''hex'')', p_value)
        when t.typcategory = 'A' and sync_internal.has_plain_text(t.typelem) then p_value
    end
    from sync_internal.base_type(p_type) b (oid)
    join pg_catalog.pg_type t on t.oid = b.oid
$$;

comment on function sync_internal.exact_expression(oid, text) is 'An expression for exactly which value one is.';

-- What a domain is made of; any other type itself.
create or replace function sync_internal.base_type(p_type oid)
returns oid
language sql
stable
parallel safe
security invoker
as $$
    with recursive chain (oid, base) as (
        select t.oid, t.typbasetype from pg_catalog.pg_type t where t.oid = p_type
        union all
        select t.oid, t.typbasetype from chain c join pg_catalog.pg_type t on t.oid = c.base
    )
    select c.oid from chain c where c.base = 0
$$;

comment on function sync_internal.base_type(oid) is 'What a domain is made of.';

-- The collection keys of a row, as an expression giving text[].
create or replace function sync_internal.topics_expression(p_columns sync_internal.columns[], p_alias text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when count(*) = 0 then '''{}''::text[]'
        else format('array_remove(array[%s], null)', string_agg(
            format(
                '%L || %s', c.name || '=',
                case
                    when c.kind in ('uuid', 'integer', 'bigint', 'boolean')
                        then format('%s.%s::text', p_alias, sync_internal.quoted(c.column_name))
                    else format(
                        'sync_internal.percent_encode(%s.%s::text)', p_alias, sync_internal.quoted(c.column_name)
                    )
                end
            ), ', ' order by c.position
        ))
    end
    from unnest(p_columns) c
    where c.topic
$$;

comment on function sync_internal.topics_expression(sync_internal.columns[], text) is 'The collection keys of a row.';

-- Makes the two trigger functions of a table. The capture function is definer, since no writer may write the feed.
create or replace function sync_internal.generate_capture(p_table_id integer)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_table sync_internal.tables;
    v_all sync_internal.columns[];
    v_most constant text := 'sync_internal.setting(''max_changes_per_statement'')';
    v_moved text;
    v_topics_moved text;
    v_changed text;
    v_was text;
    v_row text;
    v_values text;
begin
    select * into strict v_table from sync_internal.tables t where t.table_id = p_table_id;
    select array_agg(c order by c.position) into v_all from sync_internal.columns c where c.table_id = p_table_id;
    -- By name: a partition may have its columns in another order.
    select string_agg(format('r.%s', sync_internal.quoted(a.attname)), ', ' order by a.attnum) into v_values
    from pg_catalog.pg_attribute a
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped;

    -- The old row is kept as it was where nothing else differs. The touch column does not count, unless an operation
    -- put its mark there; stored generated columns are not computed yet. Runs as the writer, who may have set any
    -- search_path and needs no right on the schema of sync.now: so operators are qualified and the clock is asked
    -- there only when it is faked, by a statement of its own, since an expression is looked up whole.
    execute format(
        'create or replace function sync_internal.%1$I() returns trigger '
        'language plpgsql volatile security invoker as %2$L',
        'version_' || v_table.name,
        concat(
            E'\nbegin\n',
            -- An operation's mark tells that there is a change.
            case when v_table.touch is not null then format(
                E'    if new.%1$s operator(pg_catalog.=) ''-infinity'' then\n    else\n        new.%1$s := old.%1$s;\n',
                sync_internal.quoted(v_table.touch)
            ) end,
            format(E'    new.%1$s := old.%1$s;\n', sync_internal.quoted(v_table.version_column)),
            (
                select string_agg(format(E'    new.%1$s := old.%1$s;\n', sync_internal.quoted(a.attname)), '')
                from pg_catalog.pg_attribute a
                where a.attrelid = v_table.relation and a.attgenerated = 's' and not a.attisdropped
            ),
            E'    if not new operator(pg_catalog.*<>) old then\n        return old;\n    end if;\n',
            case when v_table.touch is not null then E'    end if;\n' end,
            format(
                E'    new.%1$s := old.%1$s operator(pg_catalog.+) 1;\n', sync_internal.quoted(v_table.version_column)
            ),
            case when v_table.touch is not null then format(
                $code$    if coalesce(pg_catalog.current_setting('rowcast.now', true), '') operator(pg_catalog.=) '' then
        new.%1$s := pg_catalog.now();
    else
        new.%1$s := sync.now();
    end if;
$code$, sync_internal.quoted(v_table.touch)
            ) end,
            E'    return new;\nend\n'
        )
    );

    select
        coalesce(string_agg(sync_internal.differs_expression(c, 'o', 'n'), ' or ') filter (where c.policy), 'false'),
        coalesce(string_agg(sync_internal.differs_expression(c, 'o', 'n'), ' or ') filter (where c.topic), 'false'),
        sync_internal.changed_expression(
            array_agg(c order by c.position)
                filter (where c.column_name not in (v_table.id_column, v_table.version_column)), 'n'
        ),
        sync_internal.changed_expression(
            array_agg(c order by c.position)
                filter (where c.column_name not in (v_table.id_column, v_table.version_column)), 'o'
        )
    into v_moved, v_topics_moved, v_changed, v_was
    from unnest(v_all) c;

    v_row := format(
        $code$
            declare
                v_old %1$s;
                v_patch text;
                v_undo text;
                v_topics text[];
                v_moved boolean := %10$s;
            begin
                select %9$s into v_old from old_rows r where r.%3$s = v_new.%3$s;
                if v_new.%4$s - v_old.%4$s = 1 then
%5$s
                    insert into sync_internal.changes
                        (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
                    values (
                        v_slot, %2$L, v_new.%3$s::text, v_new.%4$s, 'update', v_topics || %6$s,
                        concat('{', substr(v_patch, 2), '}')::json, concat('{', substr(v_undo, 2), '}')::json,
                        %7$s, case when v_moved then %8$s end
                    );
                    v_heard := true;
                elsif v_old is null or v_new *<> v_old then
                    v_made := v_made || v_new.%3$s::text;
                end if;
            end;$code$,
        v_table.relation, v_table.name, sync_internal.quoted(v_table.id_column),
        sync_internal.quoted(v_table.version_column),
        (
            select string_agg(format(
                E'                if %1$s then\n'
                '                    v_patch := concat(v_patch, %2$L, %3$s);\n'
                '                    v_undo := concat(v_undo, %2$L, %4$s);\n%5$s%6$s'
                '                end if;\n',
                sync_internal.differs_expression(c, 'v_old', 'v_new'), ',' || to_json(c.name)::text || ':',
                sync_internal.json_expression(c, 'v_new.' || sync_internal.quoted(c.column_name)),
                sync_internal.json_expression(c, 'v_old.' || sync_internal.quoted(c.column_name)),
                case when c.topic then format(
                    E'                    v_topics := %s;\n', sync_internal.topics_expression(v_all, 'v_old')
                ) end,
                case when c.policy then E'                    v_moved := true;\n' end
            ), '' order by c.position)
            from unnest(v_all) c where c.column_name not in (v_table.id_column, v_table.version_column)
        ),
        sync_internal.topics_expression(v_all, 'v_new'), sync_internal.class_expression(v_all, 'v_new'),
        sync_internal.class_expression(v_all, 'v_old'), v_values,
        -- Where policies read the version, every change is a move.
        exists (select from unnest(v_all) c where c.policy and c.column_name = v_table.version_column)::text
    );
    execute format(
        $make$create or replace function sync_internal.%1$I() returns trigger
        language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %2$L$make$,
        'capture_' || v_table.name,
        format(
            $code$
declare
    v_slot constant smallint := sync_internal.feed_slot();
    v_new %9$s;
    v_count integer := 0;
    v_heard boolean;
    v_bulk boolean;
    v_lost text[];
    v_made text[];
    v_none text;
begin
    -- A former partition keeps the triggers until they are dropped: its rows are the table's no more.
    -- Two conditions: one with a query in it is a statement, whatever its first half says.
    if tg_relid <> %9$L::regclass then
        if not exists (select from pg_partition_ancestors(tg_relid) a where a.relid = %9$L::regclass) then
            return null;
        end if;
    end if;
    if not %10$s then
        -- What the rows hold would be told wrongly by code made for another shape: let them be read again.
        if tg_level = 'ROW' or tg_op = 'TRUNCATE' then
            v_heard := true;
        elsif tg_op = 'DELETE' then
            v_heard := exists (select from old_rows);
        else
            v_heard := exists (select from new_rows);
        end if;
        if v_heard then
            insert into sync_internal.changes (slot, table_name, kind) values (v_slot, %1$L, 'bulk');
        end if;
    elsif tg_op = 'UPDATE' and tg_level = 'STATEMENT' then
        -- Few rows, the usual case, cost less by plain comparisons than by the statement for many: one a half.
        for v_new in select %11$s from new_rows r limit 5 loop
            v_count := v_count + 1;
        end loop;
        if v_count = 1 then
%8$s
        elsif v_count < 5 and v_count <= %7$s then
            for v_new in select %11$s from new_rows r loop
%8$s
            end loop;
        else
            -- A full join is never a nested loop, whatever number of rows its plan was made for; the condition
            -- keeps it one.
            insert into sync_internal.changes
                (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
            select v_slot, %1$L, %2$s
            from old_rows o full join new_rows n on n.%5$s = o.%5$s
            where coalesce(n.%5$s = o.%5$s and n.%6$s - o.%6$s = 1, false)
                and (select count(*) from (select from new_rows limit %7$s + 1) f) <= %7$s;
            get diagnostics v_count = row_count;
            v_heard := v_count > 0;
            if not v_heard then
                v_bulk := exists (select from new_rows offset %7$s);
            end if;
            if v_bulk then
                insert into sync_internal.changes (slot, table_name, kind) values (v_slot, %1$L, 'bulk');
                v_heard := true;
            elsif v_count <> (select count(*) from new_rows) then
                select
                    array_agg(o.%5$s::text) filter (where o.%5$s is not null),
                    array_agg(n.%5$s::text) filter (where n.%5$s is not null)
                into v_lost, v_made
                from old_rows o full join new_rows n on n.%5$s = o.%5$s
                where case
                    when n.%5$s is null or o.%5$s is null then true
                    else n.%6$s - o.%6$s <> 1 and (n.%6$s <> o.%6$s or n.* *<> o.*)
                end;
            end if;
        end if;
        -- Rows whose id changed have no partner, or one that was another row: a delete and a create. Two of one row are
        -- apart by one version, or equal.
        if v_made is not null then
            if v_lost is null then
                v_lost := array(
                    select o.%5$s::text from old_rows o
                    where o.%5$s::text = any (v_made) or not exists (select from new_rows n where n.%5$s = o.%5$s)
                );
            end if;
            insert into sync_internal.changes
                (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
            select v_slot, %1$L, %4$s from old_rows o where o.%5$s::text = any (v_lost)
            union all
            select v_slot, %1$L, %3$s from new_rows n where n.%5$s::text = any (v_made);
            v_heard := true;
        end if;
    elsif tg_op = 'INSERT' and tg_level = 'STATEMENT' then
        insert into sync_internal.changes
            (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
        select v_slot, %1$L, %3$s
        from new_rows n
        where (select count(*) from (select from new_rows limit %7$s + 1) f) <= %7$s;
        v_heard := found;
        if not v_heard then
            if exists (select from new_rows offset %7$s) then
                insert into sync_internal.changes (slot, table_name, kind) values (v_slot, %1$L, 'bulk');
                v_heard := true;
            end if;
        end if;
    elsif tg_op = 'DELETE' and tg_level = 'STATEMENT' then
        insert into sync_internal.changes
            (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
        select v_slot, %1$L, %4$s
        from old_rows o
        where (select count(*) from (select from old_rows limit %7$s + 1) f) <= %7$s;
        v_heard := found;
        if not v_heard then
            if exists (select from old_rows offset %7$s) then
                insert into sync_internal.changes (slot, table_name, kind) values (v_slot, %1$L, 'bulk');
                v_heard := true;
            end if;
        end if;
    elsif tg_op = 'TRUNCATE' then
        insert into sync_internal.changes (slot, table_name, kind) values (v_slot, %1$L, 'truncate');
        v_heard := true;
    elsif tg_op = 'UPDATE' then
        if new.%5$s = old.%5$s and (new.%6$s > old.%6$s or not new *<> old) then
            insert into sync_internal.changes
                (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
            select v_slot, %1$L, %2$s
            from (select old.*) o cross join (select new.*) n
            where new *<> old;
            v_heard := found;
        else
            -- Another id is another record. One whose version has not risen, since no trigger of ours is where it came
            -- from, would be overlooked by who has it.
            insert into sync_internal.changes
                (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
            select v_slot, %1$L, %4$s from (select old.*) o
            union all
            select v_slot, %1$L, %3$s from (select new.*) n;
            v_heard := true;
        end if;
    elsif tg_op = 'INSERT' then
        insert into sync_internal.changes
            (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
        select v_slot, %1$L, %3$s from (select new.*) n;
        v_heard := true;
    else
        insert into sync_internal.changes
            (slot, table_name, record_id, version, kind, topics, patch, undo, class, class_before)
        select v_slot, %1$L, %4$s from (select old.*) o;
        v_heard := true;
    end if;
    if v_heard then
        -- A commit that may be lost must not reach a screen.
        if current_setting('synchronous_commit') = 'off' then
            v_none := set_config('synchronous_commit', 'local', true);
        end if;
        -- The bell rings for who sleeps. Looked at last, when the transaction has its id for certain; null: restored
        -- without its value.
        if pg_sequence_last_value('sync_internal.bell') is distinct from 0 then
            v_none := pg_notify('rowcast', '');
        end if;
    end if;
    return null;
end
            $code$,
            v_table.name,
            format(
                $columns$n.%1$s::text, n.%2$s, 'update',
            case when %3$s then %4$s || %5$s else %5$s end, (%6$s)::json, (%7$s)::json, %8$s,
            case when %9$s then %10$s end$columns$,
                sync_internal.quoted(v_table.id_column), sync_internal.quoted(v_table.version_column), v_topics_moved,
                sync_internal.topics_expression(v_all, 'o'), sync_internal.topics_expression(v_all, 'n'),
                v_changed, v_was,
                sync_internal.class_expression(v_all, 'n'), v_moved, sync_internal.class_expression(v_all, 'o')
            ),
            format(
                $columns$n.%1$s::text, n.%2$s, 'insert', %3$s, (%4$s)::json, null, %5$s, null$columns$,
                sync_internal.quoted(v_table.id_column), sync_internal.quoted(v_table.version_column),
                sync_internal.topics_expression(v_all, 'n'),
                sync_internal.record_expression(v_all, 'n'), sync_internal.class_expression(v_all, 'n')
            ),
            format(
                $columns$o.%1$s::text, o.%2$s, 'delete', %3$s, null, (%4$s)::json, null, %5$s$columns$,
                sync_internal.quoted(v_table.id_column), sync_internal.quoted(v_table.version_column),
                sync_internal.topics_expression(v_all, 'o'),
                sync_internal.record_expression(v_all, 'o'), sync_internal.class_expression(v_all, 'o')
            ),
            sync_internal.quoted(v_table.id_column), sync_internal.quoted(v_table.version_column), v_most,
            v_row,
            v_table.relation, sync_internal.shape_condition(v_table, 'has_shape'), v_values
        )
    );
    execute format(
        'comment on function sync_internal.%I() is %L', 'version_' || v_table.name, 'Generated: the version trigger.'
    );
    execute format(
        'comment on function sync_internal.%I() is %L', 'capture_' || v_table.name, 'Generated: the capture triggers.'
    );
    execute format(
        'revoke execute on function sync_internal.%I(), sync_internal.%I() from public',
        'version_' || v_table.name, 'capture_' || v_table.name
    );
    -- Whoever owns the table makes its triggers.
    execute format(
        'grant execute on function sync_internal.%I(), sync_internal.%I() to %s',
        'version_' || v_table.name, 'capture_' || v_table.name,
        (select c.relowner::regrole from pg_catalog.pg_class c where c.oid = v_table.relation)
    );
end
$$;

comment on function sync_internal.generate_capture(integer) is 'Makes the trigger functions of a table.';

-- The changed columns of a row as an expression giving JSON text. p_alias: whose values, n or o. concat takes at most
-- a hundred arguments.
create or replace function sync_internal.changed_expression(p_columns sync_internal.columns[], p_alias text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case when count(*) = 0 then $empty$'{}'$empty$ else
        format($concat$'{' || substr(concat(%s), 2) || '}'$concat$, string_agg(g.part, ', ' order by g.bunch))
    end
    from (
        select (c.n - 1) / 60 as bunch, format('concat(%s)', string_agg(c.part, ', ' order by c.n)) as part
        from (
            select row_number() over (order by (u.c).position) as n,
                format(
                    E'\n                case when %s then concat(%L, %s) end',
                    sync_internal.differs_expression(u.c, 'o', 'n'),
                    ',' || to_json((u.c).name)::text || ':',
                    sync_internal.json_expression(
                        u.c, format('%s.%s', p_alias, sync_internal.quoted((u.c).column_name))
                    )
                ) as part
            from (select p_columns[g.i] as c from generate_subscripts(p_columns, 1) g (i)) u
        ) c
        group by (c.n - 1) / 60
    ) g
$$;

comment on function sync_internal.changed_expression(sync_internal.columns[], text)
is 'The changed columns of a row, as an expression.';

-- Which leaf of the feed is written to now. A leaf takes a sixth of the retention, so that of the eight one is empty.
create or replace function sync_internal.feed_slot()
returns smallint
language sql
stable
parallel safe
security invoker
as $$
    select (
        extract(epoch from now())::bigint / (86400 * greatest((sync_internal.setting('retention_days') + 5) / 6, 1)) % 8
    )::smallint
$$;

comment on function sync_internal.feed_slot() is 'Which leaf of the feed is written to now.';
