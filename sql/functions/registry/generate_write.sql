-- Writing the code that writes: per live table and role, static PL/pgSQL that knows the columns and the grants. Dynamic
-- SQL on a table under row-level security is planned anew at every call, about twelve times the price.

-- The branch of one column in a check: is the operation's form and type right? A key the role may not write is
-- remembered in v_forbidden, to be refused only when the whole transaction is well formed.
create or replace function sync_internal.check_branch(
    p_table sync_internal.tables, p_column sync_internal.columns, p_insertable boolean, p_updatable boolean
)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_kind constant text := p_column.kind;
    v_variable constant text := sync_internal.scratch_variable(p_column.sql_type);
    v_lists constant boolean := v_kind in ('json', 'list');
    v_code text := format(E'        when %L then\n', p_column.name);
begin
    if p_column.column_name = p_table.version_column then
        return v_code
            || E'            perform sync_internal.refuse('
                '400, ''bad_request'', ''The version is the server''''s'');\n';
    elsif p_column.column_name = p_table.id_column then
        return v_code || $code$
            if not p_creating or v_type <> 'set' or v_path is not null or v_value is distinct from p_op -> 'id' then
                perform sync_internal.refuse(400, 'bad_request', 'The id of a record cannot be changed');
            end if;
$code$;
    elsif v_kind = 'other' then
        return v_code || E'            perform sync_internal.refuse_type(''nothing: the column is read only'');\n';
    end if;

    -- The form: which operations and paths the type takes.
    v_code := v_code || format(
        E'            if %s then\n'
        '                perform sync_internal.refuse_operation(v_type, v_path, %L);\n'
        '            end if;\n',
        sync_internal.unsuited_expression(v_kind),
        v_kind
    );

    -- The value.
    if not p_column.nullable then
        v_code := v_code || $code$
            if v_type = 'set' and v_path is null and (v_value is null or jsonb_typeof(v_value) = 'null') then
                perform sync_internal.refuse(400, 'required', 'This key cannot be null');
            end if;
$code$;
    end if;
    if v_kind = 'json' then
        v_code := v_code || $code$
            if jsonb_typeof(v_value) in ('object', 'array', 'number') then
                perform sync_internal.check_json(v_value, coalesce(cardinality(v_path), 0));
            end if;
            if v_type not in ('set', 'set-now') then
                perform sync_internal.patch_leaf(null, p_op);
            end if;
$code$;
    elsif v_kind = 'list' then
        v_code := v_code || format(
            $code$
            if v_type = 'set' then
                %1$s := %2$s;
            else
                %1$s := %3$s;
                perform sync_internal.patch_list(null, p_op);
            end if;
$code$,
            v_variable, sync_internal.decode_expression(p_column, 'v_value'),
            sync_internal.decode_expression(p_column, 'jsonb_build_array(v_value)')
        );
    elsif v_kind in ('integer', 'bigint', 'numeric', 'float') then
        v_code := v_code || format(
            $code$
            if v_type = 'increment' then
                %1$s := %2$s;
            else
                %1$s := %3$s;
            end if;
$code$,
            v_variable, sync_internal.decode_expression(p_column, 'p_op -> ''by'''),
            sync_internal.decode_expression(p_column, 'v_value')
        );
    else
        v_code := v_code || format(
            E'            %s := %s;\n', v_variable, sync_internal.decode_expression(p_column, 'v_value')
        );
    end if;

    -- The right. A server-owned key may repeat its default on create.
    if not p_updatable then
        v_code := v_code || format(
            E'            if not p_creating then\n                v_forbidden := %L;\n            end if;\n',
            p_column.name
        );
    end if;
    if not p_insertable and p_column.column_name is distinct from p_table.touch then
        v_code := v_code || format(
            E'            if p_creating and (v_type <> ''set'' or v_path is not null%s) then\n'
            '                v_forbidden := %L;\n            end if;\n',
            case
                when p_column.server_owned and not v_lists
                    then format(
                        ' or %s is distinct from (%s)', v_variable, coalesce(p_column.default_expression, 'null')
                    )
                else ' or true'
            end,
            p_column.name
        );
    end if;
    return v_code;
end
$$;

comment on function sync_internal.check_branch(sync_internal.tables, sync_internal.columns, boolean, boolean)
is 'The branch of one column in a generated check.';

-- The name of the variable of a type that generated code tries values on.
create or replace function sync_internal.scratch_variable(p_type text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select left('v_a_' || regexp_replace(lower(p_type), '[^a-z0-9]+', '_', 'g'), 40)
        || '_' || abs(hashtext(p_type)) % 1000
$$;

comment on function sync_internal.scratch_variable(text) is 'The name of a variable to try values of a type on.';

-- When an operation does not suit a column, as a condition of the generated code.
create or replace function sync_internal.unsuited_expression(p_kind text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_kind = 'json' then 'false'
        when p_kind = 'list' then $c$v_path is not null or v_type not in ('set', 'listInsert', 'listRemove')$c$
        when p_kind in ('integer', 'bigint', 'numeric', 'float')
            then $c$v_path is not null or v_type not in ('set', 'increment')$c$
        when p_kind in ('timestamptz', 'timestamp', 'date')
            then $c$v_path is not null or v_type not in ('set', 'set-now')$c$
        else $c$v_path is not null or v_type <> 'set'$c$
    end
$$;

comment on function sync_internal.unsuited_expression(text) is 'When an operation does not suit a column.';

-- The new value of a column whose operation builds on the value before; null for kinds that know no such operation.
-- p_source: the value before, p_op and p_path: the operation and what follows the first segment of its key.
create or replace function sync_internal.applied_expression(
    p_column sync_internal.columns, p_source text, p_op text, p_path text
)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_column.kind = 'json' then format('sync_internal.patch_json(%s, %s, %s)', p_source, p_op, p_path)
        when p_column.kind = 'list' then sync_internal.decode_expression(
            p_column,
            format(
                'sync_internal.patch_list((%s)::jsonb, %s)', sync_internal.json_expression(p_column, p_source),
                case
                    when p_column.element_kind in ('uuid', 'bigint', 'numeric')
                        then format('sync_internal.spelled(%s, %L)', p_op, p_column.element_kind)
                    else p_op
                end
            )
        )
        when p_column.kind in ('integer', 'bigint', 'numeric', 'float')
            then format(
                'coalesce(%s, 0) + %s', p_source, sync_internal.decode_expression(p_column, p_op || ' -> ''by''')
            )
    end
$$;

comment on function sync_internal.applied_expression(sync_internal.columns, text, text, text)
is 'The new value of a column from the one before.';

-- The bytes of a record that max_record_bytes counts. p_source: a qualifier with its dot. jsonb is taken out of what it
-- may be compressed to.
create or replace function sync_internal.size_expression(p_columns sync_internal.columns[], p_alias text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    -- Few nodes: each costs at the start of the statement.
    select concat_ws(
        ' + ', '0',
        (
            select string_agg(
                format(
                    'coalesce(%s(%s.%s%s), 0)', case c.kind when 'json' then 'pg_column_size' else 'octet_length' end,
                    p_alias, sync_internal.quoted(c.column_name), case c.kind when 'json' then ' #> ''{}''' end
                ), ' + '
            )
            from unnest(p_columns) c
            where c.kind in ('json', 'bytea')
        ),
        (
            select string_agg(format('octet_length(concat(%s))', t.names), ' + ')
            from (
                select string_agg(format('%s.%s', p_alias, sync_internal.quoted(u.column_name)), ', ') as names
                from (
                    select c.column_name, row_number() over () as n
                    from unnest(p_columns) c
                    where c.kind in ('text', 'list')
                ) u
                group by u.n / 90
            ) t
        )
    )
$$;

comment on function sync_internal.size_expression(sync_internal.columns[], text)
is 'The bytes of a record that are limited, as an expression.';

-- The loop that applies operations to r, a row. What is not well formed or not allowed raises RC002, after which the
-- transaction is looked at again with care, to tell the caller what was wrong. It is made in two kinds:
-- p_plain false: r is the row as it stands, and every operation is applied to it.
-- p_plain true: the row is not known. r takes the values that need not know it, and h_<column> says which it has;
-- of those that need it one may be kept for the UPDATE, as v_stored and d_<column>. Whatever is more than this sets
-- v_beyond.
-- p_columns: what has a branch. In the code p_at is what every operation has: its table and id.
create or replace function sync_internal.operations_loop(
    p_table sync_internal.tables, p_columns sync_internal.columns[], p_updatable sync_internal.columns[],
    p_soft sync_internal.columns, p_plain boolean
)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_leave constant text := 'v_beyond := true; exit;';
    v_other constant text := case
        -- A create was checked before; what is left may repeat a default of the server's.
        when not p_plain then 'if p_updating then raise sqlstate ''RC002''; end if;'
        else v_leave
    end;
    v_removal constant text := case
        when p_soft.name is null or not p_updatable @> array[p_soft] then 'raise sqlstate ''RC002'';'
        when not p_columns @> array[p_soft] then v_leave
        else format(
            'r.%1$s := case when v_type = ''delete'' then %2$s end; %3$s continue;',
            sync_internal.quoted(p_soft.column_name),
            case p_soft.kind when 'boolean' then 'true else false' else 'sync.now()' end,
            case when p_plain then format('h_%s := true;', p_soft.position) end
        )
    end;
begin
    return concat(
        $code$
    for i in p_from .. p_to loop
        v_op := p_ops -> i;
        v_type := v_op ->> 'type';
        -- Few expressions: each that is reached costs in every transaction.
        if v_type = 'set' and v_op @> p_at and v_op ? 'key' and v_op - '{type,table,id,key,value}'::text[] = '{}' then
        elsif v_type = 'set-now' and v_op @> p_at and v_op ? 'key' and v_op - '{type,table,id,key}'::text[] = '{}' then
        elsif v_type in ('set', 'set-now', 'create', 'call') or not sync_internal.check_form(v_op)
            or v_op @> p_at is not true then
            raise sqlstate 'RC002';
        elsif v_type in ('delete', 'restore') then
            $code$, v_removal, $code$
        end if;
        v_key := v_op ->> 'key';
        v_path := null;
        if strpos(v_key, '.') > 0 or jsonb_typeof(v_op -> 'key') is distinct from 'string' then
            v_path := sync_internal.split_path(v_op -> 'key');
            v_key := v_path[1];
            v_path := nullif(v_path[2:], '{}');
        end if;
        case v_key
$code$,
        (
            -- The touched column is named by nearly every transaction.
            select string_agg(
                sync_internal.operation_branch(p_table, c, p_updatable @> array[c], p_plain),
                '' order by c.column_name is distinct from p_table.touch, c.position
            )
            from unnest(p_columns) c
        ),
        format(E'        when ''id'' then\n            %1$s\n        else\n            %1$s\n', v_other),
        E'        end case;\n    end loop;\n'
    );
end
$$;

comment on function sync_internal.operations_loop(
    sync_internal.tables, sync_internal.columns[], sync_internal.columns[], sync_internal.columns, boolean
) is 'The loop of generated code that applies operations.';

-- The branch of one column in that loop.
create or replace function sync_internal.operation_branch(
    p_table sync_internal.tables, p_column sync_internal.columns, p_updatable boolean, p_plain boolean
)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_target constant text := 'r.' || sync_internal.quoted(p_column.column_name);
    v_decoded constant text := sync_internal.decode_expression(p_column, 'v_op -> ''value''');
    v_set constant text := format(
        case
            when p_column.nullable then '%1$s := %2$s;'
            -- Null where none may be, whatever comes after it.
            else E'%1$s := %2$s;\n                if %1$s is null then raise sqlstate ''RC002''; end if;'
        end,
        v_target, v_decoded
    );
    v_refused constant text := concat_ws(
        ' or ', case when not p_updatable then 'p_updating' end,
        nullif(sync_internal.unsuited_expression(p_column.kind), 'false')
    );
    v_applied constant text := v_target || ' := '
        || sync_internal.applied_expression(p_column, v_target, 'v_op', 'v_path') || ';';
    v_code text := format(E'        when %L then\n', p_column.name);
begin
    if v_refused <> '' then
        v_code := v_code || format(
            E'            if %s then\n                raise sqlstate ''RC002'';\n            end if;\n', v_refused
        );
    end if;
    if p_column.kind = 'json' then
        v_code := v_code || $code$
            if jsonb_typeof(v_op -> 'value') in ('object', 'array', 'number') then
                v_ok := sync_internal.check_json(v_op -> 'value', coalesce(cardinality(v_path), 0)) is not null;
            end if;
$code$;
    elsif p_column.kind = 'list' then
        v_code := v_code || format(
            E'            if v_type <> ''set'' then\n                v_ok := %s is not null;\n            end if;\n',
            sync_internal.decode_expression(p_column, 'jsonb_build_array(v_op -> ''value'')')
        );
    end if;

    if p_column.column_name = p_table.touch then
        -- A mark for the version trigger, which puts the server's time there.
        v_code := v_code || format(
            E'            if v_type = ''set'' then\n                %s\n            end if;\n%s',
            v_set,
            case when not p_plain then format(E'            %s := ''-infinity'';\n', v_target) end
        );
    elsif v_applied is not null then
        v_code := v_code || format(
            E'            if %s then\n%s                %s\n            else\n                %s\n'
            '            end if;\n',
            case p_column.kind
                when 'json' then 'v_type = ''set'' and v_path is null'
                when 'list' then 'v_type = ''set'''
                else 'v_type <> ''increment'''
            end,
            case when p_plain then format(
                E'                if d_%s then\n                    v_beyond := true;\n                    exit;\n'
                '                end if;\n',
                p_column.position
            ) end,
            v_set,
            case
                when not p_plain then v_applied
                else format(
                    $code$if h_%1$s then
                    %2$s
                elsif v_stored is null then
                    v_stored := v_op;
                    v_stored_path := v_path;
                    d_%1$s := true;
                    continue;
                else
                    v_beyond := true;
                    exit;
                end if;$code$,
                    p_column.position, v_applied
                )
            end
        );
    elsif p_column.kind in ('timestamptz', 'timestamp', 'date') then
        v_code := v_code || format(
            E'            if v_type = ''set-now'' then\n                %1$s := %2$s;\n            else\n'
            '                %3$s\n            end if;\n',
            v_target,
            case p_column.kind when 'timestamptz' then 'sync.now()' else 'sync.now() at time zone ''UTC''' end,
            v_set
        );
    else
        v_code := v_code || format(E'            %s\n', v_set);
    end if;
    if p_plain then
        v_code := v_code || format(E'            h_%s := true;\n', p_column.position);
    end if;
    return v_code;
end
$$;

comment on function sync_internal.operation_branch(
    sync_internal.tables, sync_internal.columns, boolean, boolean
) is 'The branch of one column in the loop that applies operations.';

-- Makes the functions that check, patch, insert, update, delete, lock and read records of one table as one role.
create or replace function sync_internal.generate_write(p_table_id integer, p_role name)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_table sync_internal.tables;
    v_all sync_internal.columns[];
    v_readable sync_internal.columns[];
    v_insertable sync_internal.columns[];
    v_updatable sync_internal.columns[];
    v_id sync_internal.columns;
    v_soft sync_internal.columns;
    v_id_value text;
    v_where_id text;
    v_record text;
    v_version text;
    v_reads boolean;
    v_default_row text;
    v_readable_row text;
    v_plain sync_internal.columns[];
    v_plain_code text;
    v_code text;
begin
    select * into strict v_table from sync_internal.tables t where t.table_id = p_table_id;
    select
        array_agg(g."column"), array_agg(g."column") filter (where g.readable),
        coalesce(array_agg(g."column") filter (where g.insertable), '{}'),
        coalesce(array_agg(g."column") filter (where g.updatable), '{}')
    into v_all, v_readable, v_insertable, v_updatable
    from sync_internal.granted_columns(p_table_id, p_role) g;
    select * into strict v_id from unnest(v_all) c where c.column_name = v_table.id_column;
    select * into v_soft from unnest(v_all) c where c.column_name = v_table.soft_delete;
    v_reads := exists (select from unnest(v_readable) c where c.column_name = v_table.id_column);
    v_id_value := format('p_id::%s', v_id.sql_type);
    v_where_id := format(
        't.%I = %s and %s', v_table.id_column,
        -- An id beyond a narrower integer is simply not there.
        case v_table.id_type when 'bigint' then 'p_id::bigint' else v_id_value end,
        sync_internal.shape_condition(v_table)
    );
    v_record := sync_internal.record_expression(v_readable, 't');
    select
        string_agg(
            case
                when a.attname = v_table.id_column then v_id_value
                when i.position is not null and i.default_expression is not null then i.default_expression
                else 'null'
            end, ', ' order by a.attnum
        ),
        string_agg(
            case when r.position is not null then 't.' || sync_internal.quoted(a.attname) else 'null' end, ', ' order by a.attnum
        )
    into v_default_row, v_readable_row
    from pg_catalog.pg_attribute a
    left join unnest(v_insertable) i on i.position = a.attnum
    left join unnest(v_readable) r on r.position = a.attnum
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped;
    v_version := case
        when exists (select from unnest(v_readable) c where c.column_name = v_table.version_column)
            then format('t.%I::bigint', v_table.version_column)
        else '0'
    end;

    perform sync_internal.create_generated(
        format('check_%s_%s', v_table.name, p_role), 'p_op jsonb, p_creating boolean', 'text', 'stable',
        format(
            $code$
declare
    v_type constant text := p_op ->> 'type';
    v_value constant jsonb := p_op -> 'value';
    v_key text;
    v_path text[];
    v_forbidden text;
%s
begin
    if v_type in ('delete', 'restore') then
        %s
    end if;
    v_path := sync_internal.split_path(p_op -> 'key');
    v_key := v_path[1];
    v_path := nullif(v_path[2:], '{}');
    case v_key
%s
        else
            perform sync_internal.refuse(400, 'unknown_key', 'There is no such key');
    end case;
    return v_forbidden;
end
            $code$,
            (
                -- One variable a type, to try values on: each costs at every call.
                select string_agg(
                    distinct format('    %I %s;', sync_internal.scratch_variable(c.sql_type), c.sql_type), E'\n'
                )
                from unnest(v_all) c where c.kind <> 'other'
            ),
            case
                when v_soft.name is not null then format(
                    'return case when not p_creating and %L then %L end;',
                    not exists (select from unnest(v_updatable) c where c.column_name = v_table.soft_delete),
                    v_soft.name
                )
                when v_table.hard_delete then $c$
        if p_creating then
            perform sync_internal.refuse(
                400, 'not_supported', 'A record cannot be created and deleted for good at once'
            );
        elsif v_type = 'restore' then
            perform sync_internal.refuse(400, 'not_supported', 'Records of this table are deleted for good');
        end if;
        return null;$c$
                else $c$perform sync_internal.refuse(
            400, 'not_supported', 'Records of this table cannot be deleted'
        );$c$
            end,
            (
                select string_agg(
                    sync_internal.check_branch(
                        v_table, c, c.position = any (array(select i.position from unnest(v_insertable) i)),
                        c.position = any (array(select u.position from unnest(v_updatable) u))
                    ), '' order by c.position
                )
                from unnest(v_all) c
            )
        ),
        p_role
    );

    perform sync_internal.create_generated(
        format('patch_%s_%s', v_table.name, p_role),
        -- Polymorphic: a function that named the table's type would have to be dropped before the table. r is the row,
        -- which the operations change in its place.
        'r anyelement, p_ops jsonb, p_from integer, p_to integer, p_updating boolean', 'anyelement', 'volatile',
        format(
            $code$
#variable_conflict use_variable
declare
    v_row constant record := r;
    v_op jsonb;
    p_at constant jsonb := jsonb_build_object('table', %L, 'id', r.%s::text);
    v_type text;
    v_key text;
    v_path text[];
    v_ok boolean;
begin
%s%s%s
    return r;
end
            $code$,
            v_table.name, sync_internal.quoted(v_table.id_column),
            sync_internal.operations_loop(
                v_table,
                array(
                    select c from unnest(v_all) c
                    where (v_updatable @> array[c] or v_insertable @> array[c])
                        and c.column_name <> v_table.id_column and c.kind <> 'other'
                ),
                v_updatable, v_soft, false
            ),
            -- A reference must name a record the caller can read; a hidden one is answered like a missing one.
            (
                select string_agg(format(
                    -- Nested: a condition with a query in it is run as a query every time.
                    $c$    if (%s) and %s then
        if not exists (select from %s x where %s)%s then
            perform sync_internal.refuse_neutral();
        end if;
    end if;
$c$,
                    f.changed, f.present, f.parent, f.matches,
                    -- A new record may name itself.
                    case when f.parent = v_table.relation then format(' and not (%s)', f.itself) end
                ), '' order by f.conname)
                from (
                    select k.conname, k.confrelid::regclass as parent,
                        string_agg(
                            format('r.%1$s is distinct from v_row.%1$s', sync_internal.quoted(ca.attname)),
                            ' or ' order by u.n
                        ) as changed,
                        string_agg(
                            format('r.%s is not null', sync_internal.quoted(ca.attname)),
                            ' and ' order by u.n
                        ) as present,
                        string_agg(
                            format('x.%I = r.%s', pa.attname, sync_internal.quoted(ca.attname)),
                            ' and ' order by u.n
                        ) as matches,
                        string_agg(
                            format('r.%s = r.%s', sync_internal.quoted(pa.attname), sync_internal.quoted(ca.attname)),
                            ' and ' order by u.n
                        ) as itself
                    from pg_catalog.pg_constraint k
                    join sync_internal.tables p on p.relation = k.confrelid::regclass
                    cross join lateral unnest(k.conkey, k.confkey) with ordinality u (child, parent, n)
                    join pg_catalog.pg_attribute ca on ca.attrelid = k.conrelid and ca.attnum = u.child
                    join pg_catalog.pg_attribute pa on pa.attrelid = k.confrelid and pa.attnum = u.parent
                    where k.conrelid = v_table.relation and k.contype = 'f' and k.conparentid = 0
                    group by k.conname, k.confrelid
                ) f
            ),
            format(
                $c$    if %s > sync_internal.setting('max_record_bytes') then
        perform sync_internal.refuse_limit(413, 'max_record_bytes');
    end if;$c$, sync_internal.size_expression(v_all, 'r')
            )
        ),
        p_role
    );

    if v_reads then
        perform sync_internal.create_generated(
            format('read_%s_%s', v_table.name, p_role), 'p_id text', 'sync_internal.written', 'volatile',
            format(
                $code$
declare
    v_written sync_internal.written;
begin
    select %s, %s into v_written.version, v_written.record from %s t where %s;
    return v_written;
end
                $code$,
                v_version, v_record, v_table.relation, v_where_id
            ),
            p_role
        );
    end if;

    if exists (select from unnest(v_insertable) c where c.column_name = v_table.id_column) then
        perform sync_internal.create_generated(
            format('insert_%s_%s', v_table.name, p_role), 'p_id text, p_ops jsonb', 'boolean', 'volatile',
            format(
                $code$
begin
    insert into %1$s (%2$s)
    select %3$s
    from sync_internal.%4$I(row(%5$s)::%1$s, p_ops, 0, jsonb_array_length(p_ops) - 1, false) p
    where %6$s;
    return true;
end
                $code$,
                v_table.relation,
                (select string_agg(format('%I', c.column_name), ', ' order by c.position) from unnest(v_insertable) c),
                (
                    select string_agg(
                        case
                            when c.column_name = v_table.touch
                                then format(
                                    'case when p.%1$I = ''-infinity'' then sync.now() else p.%1$I end',
                                    c.column_name
                                )
                            else format('p.%I', c.column_name)
                        end, ', ' order by c.position
                    )
                    from unnest(v_insertable) c
                ),
                format('patch_%s_%s', v_table.name, p_role),
                v_default_row, sync_internal.shape_condition(v_table)
            ),
            p_role
        );
    end if;

    if cardinality(v_updatable) > 0 and v_reads then
        -- Nearly every operation gives a column a value that is known before the row is found, or known from the column
        -- alone. A reference has to be looked up, a column of a unique index is better left out.
        v_plain := array(
            select c from unnest(v_updatable) c
            where not c.in_unique and c.kind <> 'other' and not exists (
                select from pg_catalog.pg_constraint k
                join sync_internal.tables p on p.relation = k.confrelid::regclass
                where k.conrelid = v_table.relation and k.contype = 'f' and c.position = any (k.conkey)
            )
        );
        select format(
            E'update %s t set %s\n        where %s\n        returning %s, %s',
            v_table.relation,
            string_agg(format(
                '%I = case when h_%s then %s%s else t.%1$I end', c.column_name, c.position,
                case
                    when c.column_name = v_table.touch then '''-infinity'''
                    else 'r.' || sync_internal.quoted(c.column_name)
                end,
                ' when d_' || c.position || ' then '
                || sync_internal.applied_expression(c, format('t.%I', c.column_name), 'v_stored', 'v_stored_path')
            ), ', '),
            v_where_id, v_version, sync_internal.size_expression(v_readable, 't')
        )
        into v_plain_code
        from unnest(v_plain) c;
        -- Listing a column of a unique index takes a stronger lock, one that blocks inserts of children: such columns
        -- are assigned only when an operation names them.
        v_code := format(
            $c$update %1$s t set (%%1$s) = (
            select %%2$s from sync_internal.%2$I(row(%3$s)::%1$s, p_ops, p_from, p_to, true) p
        )
        where %4$s
        returning %5$s$c$,
            v_table.relation, format('patch_%s_%s', v_table.name, p_role),
            v_readable_row, v_where_id, v_version
        );
        -- What a record looks like is many expressions: nobody pays for it who did not ask.
        v_code := concat(
            'if p_want then ', v_code, ', ', replace(v_record, '%', '%%'),
            ' into v_written.version, v_written.record; else ',
            v_code, ' into v_written.version; end if;'
        );
        perform sync_internal.create_generated(
            format('update_%s_%s', v_table.name, p_role),
            'p_id text, p_at jsonb, p_ops jsonb, p_from integer, p_to integer, p_want boolean', 'sync_internal.written',
            'volatile',
            format(
                $code$
#variable_conflict use_variable
declare
    v_written sync_internal.written;
    %s
begin
    if not %s then
        return null;
    end if;
    %s
    %s
    return v_written;
end
                $code$,
                (
                    select format(
                        E'r %s;\n%s    v_op jsonb;\n    v_type text;\n'
                        '    v_key text;\n    v_path text[];\n    v_ok boolean;\n    v_beyond boolean;\n'
                        '    v_stored jsonb;\n    v_stored_path text[];\n    v_size integer;\n',
                        v_table.relation,
                        string_agg(format(
                            E'    h_%1$s boolean;\n%2$s', c.position,
                            case when sync_internal.applied_expression(c, '', '', '') <> ''
                                then format(E'    d_%s boolean;\n', c.position)
                            end
                        ), '')
                    )
                    from unnest(v_plain) c
                    having count(*) > 0
                ),
                -- An id is written the one way the wire writes it.
                case v_table.id_type
                    when 'bigint' then 'p_id::bigint::text = p_id'
                    else format('(%s)::text = p_id', v_id_value)
                end,
                case when v_plain <> '{}' then concat(
                    sync_internal.operations_loop(v_table, v_plain, v_updatable, v_soft, true),
                    '    if v_beyond is null then if p_want then ', v_plain_code, ', ', v_record,
                    ' into v_written.version, v_size, v_written.record; else ',
                    v_plain_code, ' into v_written.version, v_size; end if;',
                    $c$
        if v_size > sync_internal.setting('max_record_bytes') then
            perform sync_internal.refuse_limit(413, 'max_record_bytes');
        end if;
        return v_written;
    end if;
$c$
                ) end,
                (
                    select case
                        when bool_or(c.in_unique) and not bool_and(c.in_unique) then format(
                            $c$if %s then
        %s
    else
        %s
    end if;$c$,
                            sync_internal.names_unique(
                                array_agg(c.name) filter (where c.in_unique), v_soft
                            ), format(v_code, a.columns, a.patched),
                            format(
                                v_code,
                                string_agg(format('%I', c.column_name), ', ' order by c.position)
                                    filter (where not c.in_unique),
                                string_agg(format('p.%I', c.column_name), ', ' order by c.position)
                                    filter (where not c.in_unique)
                            )
                        )
                        else format(v_code, a.columns, a.patched)
                    end
                    from unnest(v_updatable) c
                    cross join (
                        select
                            string_agg(format('%I', u.column_name), ', ' order by u.position),
                            string_agg(format('p.%I', u.column_name), ', ' order by u.position)
                        from unnest(v_updatable) u
                    ) a (columns, patched)
                    group by a.columns, a.patched
                )
            ),
            p_role
        );
        -- Several records at once, locked in the one order: what a statement costs to begin with is paid once. Null
        -- where a column of a unique index is named. p_starts: where the operations of each record begin, and the end.
        v_code := format(
            E'update %s t set %s\n            from unnest((select v_rows)) p\n            where t.%3$s = p.%3$s and %5$s\n'
            '            returning t.%3$s::text, %4$s',
            v_table.relation,
            (
                select string_agg(format('%1$s = p.%1$s', sync_internal.quoted(c.column_name)), ', ' order by c.position)
                from unnest(v_updatable) c where not c.in_unique
            ),
            sync_internal.quoted(v_table.id_column), v_version, sync_internal.shape_condition(v_table)
        );
        if exists (select from unnest(v_updatable) c where not c.in_unique) then
            perform sync_internal.create_generated(
                format('several_%s_%s', v_table.name, p_role),
                'p_ids text[], p_starts integer[], p_ops jsonb, p_want boolean', 'sync_internal.written[]', 'volatile',
                format(
                    $code$
declare
    r %1$s;
    v_rows %1$s[];
    v_at integer;
    v_id text;
    v_written sync_internal.written;
    v_all sync_internal.written[];
begin
    %2$s
    for r in
        select %3$s from %1$s t
        where t.%4$s = any ((select p_ids::%5$s[])::%5$s[]) and %9$s
        order by t.%4$s::text collate "C"
        for no key update
    loop
        v_at := array_position(p_ids, r.%4$s::text);
        v_rows := v_rows || sync_internal.%6$I(r, p_ops, p_starts[v_at], p_starts[v_at + 1] - 1, true);
    end loop;
    if p_want then
        for v_id, v_written.version, v_written.record in
            %7$s, %8$s
        loop
            v_all[array_position(p_ids, v_id)] := v_written;
        end loop;
    else
        for v_id, v_written.version in
            %7$s
        loop
            v_all[array_position(p_ids, v_id)] := v_written;
        end loop;
    end if;
    return coalesce(v_all, '{}');
end
                    $code$,
                    v_table.relation,
                    (
                        select format(
                            E'if %s then\n        return null;\n    end if;',
                            sync_internal.names_unique(array_agg(c.name), v_soft)
                        )
                        from unnest(v_updatable) c where c.in_unique
                        having count(*) > 0
                    ),
                    v_readable_row, sync_internal.quoted(v_table.id_column),
                    case v_table.id_type when 'bigint' then 'bigint' else v_id.sql_type end,
                    format('patch_%s_%s', v_table.name, p_role), v_code, v_record,
                    sync_internal.shape_condition(v_table)
                ),
                p_role
            );
        end if;
        perform sync_internal.create_generated(
            format('lock_%s_%s', v_table.name, p_role), 'p_id text', 'bigint', 'volatile',
            format(
                $code$
declare
    v_found bigint;
begin
    select %s into v_found from %s t where %s for no key update;
    return v_found;
end
                $code$,
                v_version, v_table.relation, v_where_id
            ),
            p_role
        );
    end if;

    if v_table.hard_delete and v_reads and has_table_privilege(p_role, v_table.relation, 'delete') then
        perform sync_internal.create_generated(
            format('delete_%s_%s', v_table.name, p_role), 'p_id text', 'bigint', 'volatile',
            format(
                $code$
declare
    v_found bigint;
begin
    delete from %s t where %s returning %s into v_found;
    return v_found;
end
                $code$,
                v_table.relation, v_where_id, v_version
            ),
            p_role
        );
    end if;

    -- Whether the record a unique index refused this write for is one the caller can read.
    if v_reads then
        perform sync_internal.create_generated(
            format('clash_%s_%s', v_table.name, p_role),
            'p_id text, p_constraint text, p_ops jsonb, p_creating boolean',
            'boolean',
            'volatile',
            format(
                $code$
declare
    n %1$s;
    v_last constant integer := jsonb_array_length(p_ops) - 1;
begin
    if p_creating then
        select p.* into n from sync_internal.%2$I(row(%3$s)::%1$s, p_ops, 0, v_last, false) p;
    else
        select p.* into n
        from %1$s t
        cross join lateral sync_internal.%2$I(row(%4$s)::%1$s, p_ops, 0, v_last, true) p
        where %5$s;
    end if;
    case p_constraint
%6$s        else return p_constraint = any (%7$L) and exists (select from %1$s t where %5$s);
    end case;
exception
    when others then
        return false;
end
                $code$,
                v_table.relation, format('patch_%s_%s', v_table.name, p_role),
                v_default_row, v_readable_row, v_where_id,
                (
                    select E'        when '''' then return false;\n' || coalesce(string_agg(format(
                        E'        when %L then\n'
                        '            return exists (\n'
                        '                select from %s t where %s and t.%I is distinct from n.%4$I\n'
                        '            );\n',
                        u.constraint_name, v_table.relation,
                        (
                            select string_agg(format('t.%1$I = n.%1$I', c.name), ' and ')
                            from unnest(u.column_names) c (name)
                        ),
                        v_table.id_column
                    ), ''), '')
                    from sync_internal.uniques u
                    where u.table_id = p_table_id
                ),
                -- The unique indexes of the id itself.
                array(
                    select x.relname::text
                    from pg_catalog.pg_index i
                    join pg_catalog.pg_class x on x.oid = i.indexrelid
                    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = v_table.id_column
                    where i.indrelid = v_table.relation
                        and i.indisunique and i.indkey[0] = a.attnum and i.indnkeyatts = 1
                )
            ),
            p_role
        );
    end if;
end
$$;

comment on function sync_internal.generate_write(integer, name)
is 'Makes the functions that write one table as one role.';

-- Creates one generated function, callable by the role it is for and by nobody else.
create or replace function sync_internal.create_generated(
    p_name text, p_arguments text, p_returns text, p_volatility text, p_body text, p_role name
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
-- The body of a polymorphic function is checked as if its row were a number.
set check_function_bodies = off
as $$
begin
    if length(p_name) > 63 then
        raise exception using errcode = '22023', message = format('The name %s is too long', p_name),
            hint = 'Give the table a shorter wire name: p_name => ''...''.';
    end if;
    execute format(
        'create function sync_internal.%I(%s) returns %s language plpgsql %s parallel unsafe security invoker as %L',
        p_name, p_arguments, p_returns, p_volatility, p_body
    );
    execute format(
        'comment on function sync_internal.%I is %L', p_name, 'Generated: sync.refresh writes it anew.'
    );
    execute format('revoke execute on function sync_internal.%I from public', p_name);
    execute format('grant execute on function sync_internal.%I to %I', p_name, p_role);
end
$$;

comment on function sync_internal.create_generated(text, text, text, text, text, name)
is 'Creates one generated function.';

-- Whether operations change a column of a unique index, as a condition: they name its key, or delete or restore where
-- that is the column they set.
create or replace function sync_internal.names_unique(p_names text[], p_soft sync_internal.columns)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select format('sync_internal.names_any(p_ops, %L)', p_names) || case
        when p_soft.in_unique
            then $c$ or p_ops @? '$[*] ? (@.type == "delete" || @.type == "restore")'$c$
        else ''
    end
$$;

comment on function sync_internal.names_unique(text[], sync_internal.columns)
is 'Whether operations change a column of a unique index.';
