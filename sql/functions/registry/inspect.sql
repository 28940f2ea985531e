-- Reading a table's shape from the catalogue into the registry.

-- What the wire makes of a type. element_kind: of a list; enum_values: of an enum or a list of one. Everything not named here is read only.
create or replace function sync_internal.type_kind(
    p_type oid, out kind text, out element_kind text, out enum_values text[]
)
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_type record;
begin
    select t.oid, t.typtype, t.typelem, t.typbasetype, t.typcategory, t.typnamespace into v_type
    from pg_catalog.pg_type t where t.oid = p_type;
    if v_type.typtype = 'd' then
        select k.kind, k.element_kind, k.enum_values into kind, element_kind, enum_values
        from sync_internal.type_kind(v_type.typbasetype) k;
        return;
    end if;
    kind := case
        when v_type.typtype = 'e' then 'enum'
        when v_type.typcategory = 'A' then 'list'
        when p_type in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype) then 'text'
        when p_type in ('smallint'::regtype, 'integer'::regtype) then 'integer'
        when p_type = 'bigint'::regtype then 'bigint'
        when p_type = 'numeric'::regtype then 'numeric'
        when p_type in ('real'::regtype, 'double precision'::regtype) then 'float'
        when p_type = 'boolean'::regtype then 'boolean'
        when p_type = 'timestamptz'::regtype then 'timestamptz'
        when p_type = 'timestamp'::regtype then 'timestamp'
        when p_type = 'date'::regtype then 'date'
        when p_type = 'uuid'::regtype then 'uuid'
        when p_type = 'bytea'::regtype then 'bytea'
        when p_type = 'jsonb'::regtype then 'json'
        when v_type.typcategory = 'S' then 'text'
        else 'other'
    end;
    if kind = 'enum' then
        enum_values := array(
            select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = p_type order by e.enumsortorder
        );
    elsif kind = 'list' then
        select k.kind, k.enum_values into element_kind, enum_values from sync_internal.type_kind(v_type.typelem) k;
        if element_kind not in ('text', 'enum', 'uuid', 'integer', 'bigint', 'numeric', 'float', 'boolean', 'date') then
            kind := 'other';
            element_kind := null;
            enum_values := null;
        end if;
    end if;
end
$$;

comment on function sync_internal.type_kind(oid) is 'What the wire makes of a type.';

-- A hash of what the generated code copies: columns, types, defaults, grants, foreign keys. Where it differs from the one
-- the code was made for, the table is refused. Unique indexes are not among it: one that is built concurrently would
-- shut the table for as long as that takes. The settings are those that the text of a default depends on.
create or replace function sync_internal.table_shape(p_relation regclass)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set intervalstyle = 'iso_8601'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
set quote_all_identifiers = off
set standard_conforming_strings = on
as $$
    select encode(sha256(convert_to(string_agg(s.line, E'\n' order by s.line collate "C"), 'UTF8')), 'hex')
    from (
        select format(
            'column %s %s %s %s %s %s %s%s %s',
            a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull,
            pg_get_expr(d.adbin, d.adrelid), a.attgenerated, a.attidentity,
            (
                select string_agg(
                    has_column_privilege(r.role, p_relation, a.attnum, p.privilege)::text,
                    '' order by r.role, p.privilege
                )
                from unnest(array['anon', 'authenticated', 'service_role']) r (role),
                    unnest(array['select', 'insert', 'update']) p (privilege)
            )
        )
        from pg_catalog.pg_attribute a
        left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
        union all
        select format('reference %s %s %s', c.conkey, c.confrelid::regclass, c.confkey)
        from pg_catalog.pg_constraint c where c.conrelid = p_relation and c.contype = 'f'
        union all
        -- Code that knows of none to be deferred leaves it to the commit, where a refusal comes too late.
        select 'deferrable'
        where exists (
            select from pg_catalog.pg_constraint c where c.conrelid = p_relation and c.condeferrable
        )
        union all
        select format(
            'table %s %s %s %s', c.oid::regclass, c.relrowsecurity,
            has_table_privilege('authenticated', c.oid, 'delete'), has_table_privilege('service_role', c.oid, 'delete')
        )
        from pg_catalog.pg_class c where c.oid = p_relation
    ) s (line)
$$;

comment on function sync_internal.table_shape(regclass) is 'A hash of what the generated code copies of a table.';

-- The shape, and a hash of what else is looked at when a table is made live: values of enums, unique indexes, triggers
-- and policies. Where only that differs, the code goes on and sync.doctor tells.
create or replace function sync_internal.table_signature(p_relation regclass)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set intervalstyle = 'iso_8601'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
set quote_all_identifiers = off
set standard_conforming_strings = on
as $$
    select concat(
        sync_internal.table_shape(p_relation), '-',
        encode(sha256(convert_to(string_agg(s.line, E'\n' order by s.line collate "C"), 'UTF8')), 'hex')
    )
    from (
        select format('enum %s %s', a.attname, string_agg(e.enumlabel, ',' order by e.enumsortorder))
        from pg_catalog.pg_attribute a
        join pg_catalog.pg_type y on y.oid = a.atttypid
        join pg_catalog.pg_enum e on e.enumtypid in (y.oid, y.typelem)
        where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped
        group by a.attname
        union all
        select format('index %s', pg_get_indexdef(i.indexrelid))
        from pg_catalog.pg_index i where i.indrelid = p_relation and i.indisunique
        union all
        select format('trigger %s %s', t.tgname, t.tgenabled)
        from pg_catalog.pg_trigger t
        where t.tgrelid = p_relation and not t.tgisinternal and t.tgname not like 'zzz_rowcast%'
        union all
        select format('policy %s %s %s %s', p.polname, p.polcmd, p.polroles, pg_get_expr(p.polqual, p.polrelid))
        from pg_catalog.pg_policy p where p.polrelid = p_relation
    ) s (line)
$$;

comment on function sync_internal.table_signature(regclass) is 'A hash of what the generated code was made from.';

-- Is the table the one, and of the shape, that code was made for? Generated code asks it with constants. Immutable, so
-- that PostgreSQL asks once when it makes the plan and, since the plan mentions the table, again whenever the table
-- has been altered or its grants changed: the answer costs nothing at each call. In a statement on the table itself it
-- is asked under that statement's lock, so that nothing is written by code that does not fit.
create or replace function sync_internal.has_shape(p_relation regclass, p_shape text)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    return sync_internal.has_shape_now(p_relation, p_shape);
end
$$;

comment on function sync_internal.has_shape(regclass, text) is 'Whether a table is of the shape code was made for.';

-- Volatile, for a snapshot of its own: that of the statement being planned is older than the lock it has waited for.
-- Another table that has taken the name lacks the trigger.
create or replace function sync_internal.has_shape_now(p_relation regclass, p_shape text)
returns boolean
language plpgsql
volatile
parallel safe
security invoker
as $$
declare
    v_shape constant text := sync_internal.table_shape(p_relation);
begin
    return v_shape = p_shape and exists (
        select from pg_catalog.pg_trigger t where t.tgrelid = p_relation and t.tgname = 'zzz_rowcast_version'
    );
end
$$;

comment on function sync_internal.has_shape_now(regclass, text) is 'Whether a table is of this shape now.';

-- The same, but PT503 where it does not fit.
create or replace function sync_internal.fits(p_relation regclass, p_shape text)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if not sync_internal.has_shape_now(p_relation, p_shape) then
        perform sync_internal.refuse(
            503, 'schema_changed',
            format('The table''s shape has changed since its code was made: select sync.refresh(%L)', p_relation)
        );
    end if;
    return true;
end
$$;

comment on function sync_internal.fits(regclass, text) is 'Refuses a table of another shape than code was made for.';
grant execute on function
sync_internal.table_shape(regclass), sync_internal.has_shape_now(regclass, text), sync_internal.fits(regclass, text)
to anon, authenticated, service_role, rowcast_gateway;

-- How generated code asks it. p_function: fits or has_shape.
create or replace function sync_internal.shape_condition(p_table sync_internal.tables, p_function text default 'fits')
returns text
language sql
stable
parallel safe
security invoker
as $$
    select format(
        'sync_internal.%s(%L::regclass, %L)', p_function, p_table.relation, split_part(p_table.signature, '-', 1)
    )
$$;

comment on function sync_internal.shape_condition(sync_internal.tables, text)
is 'How generated code asks whether its table still fits.';

-- Writes the registry's columns, uniques and traits of a live table anew. PT400 where names collide or do not
-- come back.
create or replace function sync_internal.inspect(p_table_id integer)
returns void
language plpgsql
volatile
parallel unsafe
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
    v_table sync_internal.tables;
    v_policy_columns smallint[];
    v_clash text;
begin
    select * into strict v_table from sync_internal.tables t where t.table_id = p_table_id;
    v_policy_columns := sync_internal.record_closure(p_table_id);

    select string_agg(a.attname, ', ') into v_clash
    from pg_catalog.pg_attribute a
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped
        and not v_table.options -> 'exclude' ? a.attname
        and not v_table.options -> 'names' ? a.attname
        and a.attname not in (v_table.id_column, v_table.version_column)
        and (
            sync_internal.sql_name(sync_internal.wire_name(a.attname)) <> a.attname
            or a.attname !~ '^[a-z][a-z0-9_]*$' or a.attname in ('id', 'version', 'constructor', 'prototype')
        );
    if v_clash is not null then
        raise exception using errcode = '22023',
            message = format('%s: no wire name can be made for %s', v_table.relation, v_clash),
            hint = 'Say p_names => ''{"column": "wireName"}''.';
    end if;

    select string_agg(format('%s => %s', n.key, n.value), ', ') into v_clash
    from jsonb_each(v_table.options -> 'names') n
    where jsonb_typeof(n.value) <> 'string' or n.value #>> '{}' !~ '^[a-z][A-Za-z0-9]*$'
        or n.value #>> '{}' in ('id', 'version', 'constructor', 'prototype')
        or exists (
            select from jsonb_each(v_table.options -> 'names') o where o.key <> n.key and o.value = n.value
        )
        or exists (
            select from pg_catalog.pg_attribute a
            where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped and a.attname <> n.key
                and not v_table.options -> 'names' ? a.attname and not v_table.options -> 'exclude' ? a.attname
                and sync_internal.wire_name(a.attname) = n.value #>> '{}'
        );
    if v_clash is not null then
        raise exception using errcode = '22023',
            message = format('%s: these wire names cannot be used: %s', v_table.relation, v_clash),
            hint = 'Say p_names => ...: a wire name is a letter and then letters or digits, and belongs to one column.';
    end if;

    delete from sync_internal.columns c where c.table_id = p_table_id;
    insert into sync_internal.columns (
        table_id, position, column_name, name, kind, sql_type, element_kind, nullable, default_expression, computed,
        server_owned, topic, policy, in_unique, parent_id, enum_values
    )
    select
        p_table_id, a.attnum, a.attname,
        case a.attname
            when v_table.id_column then 'id'
            when v_table.version_column then 'version'
            else coalesce(v_table.options -> 'names' ->> a.attname, sync_internal.wire_name(a.attname))
        end,
        k.kind, format_type(a.atttypid, a.atttypmod), k.element_kind,
        not (a.attnotnull or exists (
            select from pg_catalog.pg_type y where y.oid = a.atttypid and y.typtype = 'd' and y.typnotnull
        )),
        case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
        a.attgenerated <> '' or a.attidentity = 'a',
        coalesce(v_table.options -> 'server_owned' ? a.attname, false),
        case
            -- Other kinds have more than one text, which would make more than one key.
            when k.kind not in ('uuid', 'text', 'integer', 'bigint', 'boolean', 'enum') then false
            when jsonb_typeof(v_table.options -> 'topics') = 'array' then v_table.options -> 'topics' ? a.attname
            else exists (
                select from pg_catalog.pg_constraint c
                where c.conrelid = v_table.relation and c.contype = 'f' and c.conkey = array[a.attnum]
            )
        end,
        a.attnum = any (v_policy_columns),
        exists (
            select from pg_catalog.pg_index i
            where i.indrelid = v_table.relation and i.indisunique and i.indpred is null and i.indexprs is null
                and i.indimmediate and a.attnum = any (i.indkey::smallint[])
        ) and a.attname <> v_table.id_column,
        (
            select min(p.table_id)
            from pg_catalog.pg_constraint c
            join sync_internal.tables p on p.relation = c.confrelid::regclass
            join pg_catalog.pg_attribute pa
                on pa.attrelid = c.confrelid and c.confkey = array[pa.attnum] and pa.attname = p.id_column
            where c.conrelid = v_table.relation and c.contype = 'f' and c.conkey = array[a.attnum]
        ),
        k.enum_values
    from pg_catalog.pg_attribute a
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    cross join lateral sync_internal.type_kind(a.atttypid) k
    where a.attrelid = v_table.relation and a.attnum > 0 and not a.attisdropped
        and not v_table.options -> 'exclude' ? a.attname;

    delete from sync_internal.uniques u where u.table_id = p_table_id;
    insert into sync_internal.uniques (table_id, constraint_name, column_names)
    select p_table_id, x.relname, array_agg(a.attname order by k.n)
    from pg_catalog.pg_index i
    join pg_catalog.pg_class x on x.oid = i.indexrelid
    cross join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = v_table.relation and i.indisunique and i.indexprs is null and k.n <= i.indnkeyatts
    group by x.relname
    having array_agg(a.attname order by k.n) <> array[v_table.id_column];

    update sync_internal.tables t
    set signature = sync_internal.table_signature(t.relation)
    where t.table_id = p_table_id;
end
$$;

comment on function sync_internal.inspect(integer) is 'Reads the shape of a live table from the catalogue.';

-- Which live tables have triggers of the application's that writers have to mind, their own or those of a table that a
-- cascade of theirs writes.
create or replace function sync_internal.measure_triggers()
returns void
language sql
volatile
parallel unsafe
security invoker
as $$
    update sync_internal.tables t
    set foreign_triggers = exists (
            with recursive reached (relid) as (
                select t.relation::oid
                union
                select c.conrelid
                from reached r
                join pg_catalog.pg_constraint c on c.confrelid = r.relid and c.contype = 'f'
                where c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd')
            )
            select from pg_catalog.pg_trigger g
            where g.tgrelid in (select r.relid from reached r)
                and not g.tgisinternal and g.tgname not like 'zzz_rowcast%'
                and not exists (
                    select from sync_internal.tables l
                    where l.relation = g.tgrelid and g.tgname = any (l.trusted_triggers)
                )
        )
$$;

comment on function sync_internal.measure_triggers() is 'Which live tables have triggers to mind.';

-- How many foreign keys lie above each live table: parents are inserted first.
create or replace function sync_internal.measure_depth()
returns void
language sql
volatile
parallel unsafe
security invoker
as $$
    with recursive chain (table_id, depth) as (
        select t.table_id, 0 from sync_internal.tables t
        union
        select c.table_id, p.depth + 1
        from chain p
        join sync_internal.columns c on c.parent_id = p.table_id and c.table_id <> p.table_id
        where p.depth < 20
    )
    update sync_internal.tables t
    set depth = d.depth
    from (select c.table_id, max(c.depth) as depth from chain c group by c.table_id) d
    where d.table_id = t.table_id and t.depth <> d.depth
$$;

comment on function sync_internal.measure_depth() is 'How many foreign keys lie above each live table.';
