-- Pieces of the generated code.

-- A name, quoted always: PL/pgSQL reserves words that SQL, and so quote_ident, does not.
create or replace function sync_internal.quoted(p_name text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select '"' || replace(p_name, '"', '""') || '"'
$$;

comment on function sync_internal.quoted(text) is 'A name, quoted always.';

-- An SQL expression giving the JSON of a column, to be concatenated. p_source: a qualified column such as t.title. No
-- setting of the session may show in it: a row has one text, whoever wrote or reads it.
create or replace function sync_internal.json_expression(p_column sync_internal.columns, p_source text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    -- Few nodes: each function costs at the start of every statement it stands in, whether it is called or not.
    select case when p_column.nullable then format('coalesce(%s, ''null'')', e.expression) else e.expression end
    from (
        select case
            when p_column.kind = 'json' then p_source
            when p_column.kind in ('bigint', 'numeric') then format('to_json(%s::text)', p_source)
            when p_column.kind = 'timestamptz' then format('to_json(sync_internal.wire_time(%s))', p_source)
            when p_column.kind = 'timestamp' then format('to_json(sync_internal.wire_timestamp(%s))', p_source)
            when p_column.kind = 'bytea'
                then format('to_json(translate(encode(%s, ''base64''), E''\n'', ''''))', p_source)
            when p_column.kind = 'list' and p_column.element_kind in ('bigint', 'numeric')
                then format('to_json(%s::text[])', p_source)
            when 'float' in (p_column.kind, p_column.element_kind)
                then format('sync_internal.float_json(%s)', p_source)
            when p_column.kind = 'other' then format('sync_internal.exact_json(%s)', p_source)
            -- char(n) without its padding, as every comparison sees it
            when p_column.kind = 'text' and p_column.sql_type ~ '^(text|character varying)'
                then format('to_json(%s)', p_source)
            when p_column.kind = 'text' then format('to_json(%s::text)', p_source)
            else format('to_json(%s)', p_source)
        end
    ) e (expression)
$$;

comment on function sync_internal.json_expression(sync_internal.columns, text)
is 'The JSON of a column, as an expression.';

-- An SQL expression giving the JSON text of a record with these columns. concat takes at most a hundred arguments, so
-- that wide records are nested. What stands between two values is one argument: each costs as much as a small value.
create or replace function sync_internal.record_expression(p_columns sync_internal.columns[], p_alias text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select format(case when count(*) > 1 then 'concat(%s)' else '%s' end, string_agg(
        format('concat(%s%s)', b.parts, case when b.last is not null then format(', %L', b.last) end), ', ' order by b.bunch
    ))
    from (
        select (c.n - 1) / 40 as bunch,
            string_agg(
                format(
                    '%L, %s',
                    case when c.n = 1 then '{' else c.mark_before || ',' end || to_json(c.name)::text || ':' || c.mark, c.value
                ), ', ' order by c.n
            ) as parts,
            max(c.mark || '}') filter (where c.is_last) as last
        from (
            select v.*, coalesce(lag(v.mark) over (order by v.n), '') as mark_before,
                lead(v.n) over (order by v.n) is null as is_last
            from (
                select o.n, (o.c).name,
                    -- What needs nothing but quotes goes in as it is: a fifth of the time of a large result.
                    case
                        when not (o.c).nullable and (o.c).kind in ('uuid', 'bigint', 'numeric', 'timestamptz') then '"'
                        else ''
                    end as mark,
                    case
                        when not (o.c).nullable and (o.c).kind in ('uuid', 'bigint', 'numeric', 'integer') then o.source
                        when not (o.c).nullable and (o.c).kind = 'timestamptz'
                            then format('sync_internal.wire_time(%s)', o.source)
                        else sync_internal.json_expression(o.c, o.source)
                    end as value
                from (
                    select u.c, format('%s.%s', p_alias, sync_internal.quoted((u.c).column_name)) as source,
                        row_number() over (order by (u.c).name <> 'id', (u.c).name <> 'version', (u.c).position) as n
                    from (select p_columns[g.i] as c from generate_subscripts(p_columns, 1) g (i)) u
                ) o
            ) v
        ) c
        group by (c.n - 1) / 40
    ) b
$$;

comment on function sync_internal.record_expression(sync_internal.columns[], text)
is 'The JSON text of a record, as an expression.';

-- An SQL expression telling that a column differs between two rows. Types whose equality overlooks what a reader would
-- see (1.0 and 1.00, letters that differ in case), or that have none, are compared as they are stored, as the version
-- trigger does.
create or replace function sync_internal.differs_expression(p_column sync_internal.columns, p_old text, p_new text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_column.kind in ('numeric', 'json', 'other', 'list', 'float')
            or p_column.kind = 'text' and p_column.sql_type !~ '^(text|character)'
            then format(
                '(row(%1$s.%3$s)::record *<> row(%2$s.%3$s)::record)',
                p_old, p_new, sync_internal.quoted(p_column.column_name)
            )
        when p_column.kind = 'text'
            then format(
                '%1$s.%3$s collate "C" is distinct from %2$s.%3$s collate "C"', p_old, p_new,
                sync_internal.quoted(p_column.column_name)
            )
        else format('%1$s.%3$s is distinct from %2$s.%3$s', p_old, p_new, sync_internal.quoted(p_column.column_name))
    end
$$;

comment on function sync_internal.differs_expression(sync_internal.columns, text, text)
is 'Whether a column differs, as an expression.';

-- An SQL expression giving a column's value from a value of the wire. p_source: a jsonb expression.
create or replace function sync_internal.decode_expression(p_column sync_internal.columns, p_source text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case p_column.kind
        when 'json' then format('nullif(%s, ''null'')', p_source)
        -- Without a length: a cast to one would cut what is too long, where storing it refuses.
        when 'list' then format(
            'sync_internal.to_texts(%s, %L)::%s', p_source, p_column.element_kind,
            case
                when p_column.element_kind <> 'text' then p_column.sql_type
                when p_column.sql_type like 'character varying%' then 'varchar[]'
                when p_column.sql_type like 'character(%' then 'bpchar[]'
                else p_column.sql_type
            end
        )
        when 'enum' then format('sync_internal.to_text(%s)', p_source)
        else format('sync_internal.to_%s(%s)', p_column.kind, p_source)
    end
$$;

comment on function sync_internal.decode_expression(sync_internal.columns, text)
is 'A column''s value from the wire, as an expression.';

-- The columns of a live table with what a role may do with each.
create or replace function sync_internal.granted_columns(
    p_table_id integer, p_role name,
    out "column" sync_internal.columns, out readable boolean, out insertable boolean, out updatable boolean
)
returns setof record
language sql
stable
parallel safe
security invoker
as $$
    select
        c,
        g.readable,
        has_column_privilege(p_role, t.relation, c.position, 'insert')
        and not c.server_owned and not c.computed and c.column_name <> t.version_column,
        has_column_privilege(p_role, t.relation, c.position, 'update')
        and g.readable and not c.server_owned and not c.computed
        and c.column_name not in (t.id_column, t.version_column)
    from sync_internal.columns c
    join sync_internal.tables t on t.table_id = c.table_id
    cross join lateral (
        select has_column_privilege(p_role, t.relation, c.position, 'select')
            and has_schema_privilege(
                p_role, (select r.relnamespace from pg_catalog.pg_class r where r.oid = t.relation), 'usage'
            )
    ) g (readable)
    where c.table_id = p_table_id
    order by c.position
$$;

comment on function sync_internal.granted_columns(integer, name)
is 'The columns of a live table with what a role may do.';
