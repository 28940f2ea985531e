-- The registry as JSON, from which clients' types are made: per live table its keys with type, nullability, allowed
-- values and, for optimistic creates, defaults that a client can know: {"constant": value}, {"now": true},
-- {"user": true} or {"uuid": true}; and the comments on tables and columns. What may be done with a key is told of the
-- caller's role; of authenticated, for which clients are made, where the caller is none of the roles that write. schema
-- is the version that clients made from this send along. Definer: the registry is private; it tells nothing of rows.
create or replace function sync.describe()
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'schema', (select s.app_schema from sync_internal.state s),
        'tables', (
            select coalesce(jsonb_object_agg(t.name, jsonb_build_object(
                'idType', t.id_type,
                'softDelete', (
                    select c.name from sync_internal.columns c
                    where c.table_id = t.table_id and c.column_name = t.soft_delete
                ),
                'touch', (
                    select c.name from sync_internal.columns c
                    where c.table_id = t.table_id and c.column_name = t.touch
                ),
                'hardDelete', t.hard_delete, 'wholeTable', t.whole_table,
                'stale', t.signature <> sync_internal.table_signature(t.relation),
                'comment', obj_description(t.relation, 'pg_class'),
                'keys', (
                    select jsonb_object_agg(c.name, jsonb_strip_nulls(jsonb_build_object(
                        'type', c.kind, 'elementType', c.element_kind, 'nullable', c.nullable,
                        'required', not c.nullable and c.default_expression is null and not c.computed
                            and not c.server_owned
                            and c.column_name not in (t.id_column, t.version_column),
                        'serverOwned', c.server_owned or c.computed or null,
                        'readable', nullif(g.readable, true),
                        -- Of what nobody writes it goes without saying.
                        'insertable', case when w.writable then nullif(g.insertable, true) end,
                        'updatable', case when w.writable then nullif(g.updatable, true) end,
                        'topic', c.topic or null,
                        'references', (select p.name from sync_internal.tables p where p.table_id = c.parent_id),
                        'values', coalesce(
                            to_jsonb(c.enum_values), sync_internal.checked_values(t.relation, c.position)
                        ),
                        'maxLength', sync_internal.max_length(a.atttypid, a.atttypmod),
                        'default', sync_internal.known_default(c.kind, c.default_expression),
                        'comment', col_description(t.relation, c.position)
                    )))
                    from sync_internal.granted_columns(t.table_id, r.role) g
                    cross join lateral (select (g."column").*) c
                    join pg_attribute a on a.attrelid = t.relation and a.attnum = c.position
                    cross join lateral (
                        select not c.server_owned and not c.computed and c.kind <> 'other'
                            and c.column_name not in (t.id_column, t.version_column)
                    ) w (writable)
                )
            )), '{}')
            from sync_internal.tables t
            cross join sync_internal.described_role() r (role)
            where exists (select from pg_class r where r.oid = t.relation)
        ),
        'functions', (
            select coalesce(jsonb_object_agg(c.name, sync_internal.wire_arguments(to_regprocedure(c.function))), '{}')
            from sync_internal.callables c where to_regprocedure(c.function) is not null
        )
    )
$$;

comment on function sync.describe() is 'The registry as JSON, from which clients'' types are made.';
grant execute on function sync.describe() to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

-- The role whose grants describe tells, seen from within that definer function: the one taken on, or a login's own.
create or replace function sync_internal.described_role()
returns name
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(
        (
            select r.role::name from unnest(array['anon', 'authenticated', 'service_role']) r (role)
            where r.role in (current_setting('role'), session_user)
            order by r.role <> current_setting('role') limit 1
        ),
        (select l.role::name from sync_internal.logins l where l.login = session_user),
        'authenticated'
    )
$$;

comment on function sync_internal.described_role() is 'The role whose grants describe tells.';

-- The most characters a text of this type has; null where the type does not say. What a CHECK says is not among it: who
-- breaks one is told so, by its name.
create or replace function sync_internal.max_length(p_type oid, p_modifier integer)
returns integer
language sql
stable
parallel safe
security invoker
as $$
    select case
        when t.typtype = 'd' then sync_internal.max_length(t.typbasetype, t.typtypmod)
        when t.oid in ('varchar'::regtype, 'bpchar'::regtype) and p_modifier > 4 then p_modifier - 4
    end
    from pg_catalog.pg_type t where t.oid = p_type
$$;

comment on function sync_internal.max_length(oid, integer) is 'The most characters a text of this type has.';

-- The names of a function's arguments on the wire.
create or replace function sync_internal.wire_arguments(p_function regprocedure)
returns jsonb
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(jsonb_object_agg(
        sync_internal.wire_name(regexp_replace(p.proargnames[a.n], '^p_', '')),
        jsonb_build_object(
            'type', (sync_internal.type_kind(a.type)).kind, 'required', a.n <= p.pronargs - p.pronargdefaults
        )
    ), '{}')
    from pg_catalog.pg_proc p
    cross join lateral unnest(p.proargtypes::oid[]) with ordinality a (type, n)
    where p.oid = p_function
$$;

comment on function sync_internal.wire_arguments(regprocedure) is 'The names of a function''s arguments on the wire.';

-- The values a CHECK of the form column in (...) allows.
create or replace function sync_internal.checked_values(p_relation regclass, p_position smallint)
returns jsonb
language sql
stable
parallel safe
security invoker
as $$
    select jsonb_agg(m.part[1])
    from pg_catalog.pg_constraint c
    cross join lateral regexp_matches(pg_get_constraintdef(c.oid), '''([^'']*)''::text', 'g') m (part)
    where c.conrelid = p_relation and c.contype = 'c' and c.conkey = array[p_position]
        and pg_get_constraintdef(c.oid)
            ~ '^CHECK \(\(\(?\w+\)?(::text)? = ANY \(\(?ARRAY\[[^()]*\](\)::text\[\])?\)\)\)$'
$$;

comment on function sync_internal.checked_values(regclass, smallint) is 'The values a CHECK of a column allows.';

-- A default that a client can know, as the wire writes values of this kind. Told by the text of the expression, which is
-- never evaluated: a cast may run code of the application's.
create or replace function sync_internal.known_default(p_kind text, p_expression text)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_expression in ('now()', 'CURRENT_TIMESTAMP', 'transaction_timestamp()', 'sync.now()')
            then '{"now": true}'
        when p_expression in ('auth.uid()') then '{"user": true}'
        when p_expression in ('gen_random_uuid()', 'uuidv4()', 'uuidv7()') then '{"uuid": true}'
        when p_kind = 'boolean' and p_expression in ('true', 'false')
            then jsonb_build_object('constant', p_expression::jsonb)
        when p_kind in ('integer', 'float') and l.literal ~ '^-?[0-9]+(\.[0-9]+)?$'
            then jsonb_build_object('constant', l.literal::numeric)
        when p_kind in ('bigint', 'numeric') and l.literal ~ '^-?[0-9]+(\.[0-9]+)?$'
            or p_kind = 'date' and l.literal ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'
            or p_kind in ('text', 'enum', 'uuid') and l.quoted
            then jsonb_build_object('constant', l.literal)
        when p_kind = 'json' and l.quoted then jsonb_build_object('constant', l.literal::jsonb)
        when p_kind = 'list' and l.literal = '{}' then '{"constant": []}'
    end
    from (
        select q.quoted,
            case
                when q.quoted
                    then replace(regexp_replace(p_expression, '^''((?:[^'']|'''')*)''::.*$', '\1'), '''''', '''')
                else p_expression
            end
        from (select p_expression ~* '^''([^'']|'''')*''::[a-z0-9_. "]+(\([0-9,]+\))?(\[\])?$') q (quoted)
    ) l (quoted, literal)
$$;

comment on function sync_internal.known_default(text, text) is 'A default that a client can know.';
