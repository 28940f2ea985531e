-- What reading needs to know of a live table, as the given role may know it: only columns the role may select. It is
-- written into the functions meta_anon, meta_authenticated and meta_service_role as a constant.
create or replace function sync_internal.table_meta(p_table_id integer, p_role text)
returns jsonb
language sql
stable
parallel safe
security invoker
as $$
    select jsonb_build_object(
        'name', t.name, 'relation', t.relation::text, 'id', t.id_column,
        'idType', t.id_type, 'version', t.version_column,
        'versioned', has_column_privilege(p_role, t.relation, t.version_column, 'select'),
        'softDelete', (
            select c.name from sync_internal.columns c
            where c.table_id = t.table_id and c.column_name = t.soft_delete
        ),
        'softDeleteColumn', t.soft_delete, 'wholeTable', t.whole_table, 'readable', coalesce(r.readable, false),
        'record', case when r.readable then sync_internal.record_expression(r.columns, 't') end,
        'columns', (
            select coalesce(jsonb_object_agg((c.c).name, jsonb_build_object(
                'column', (c.c).column_name, 'kind', (c.c).kind, 'elementKind', (c.c).element_kind,
                'type', (c.c).sql_type,
                -- Whether values that are equal for PostgreSQL are the same text.
                'exact', (
                    select coalesce(l.collisdeterministic, true)
                    from pg_catalog.pg_attribute a left join pg_catalog.pg_collation l on l.oid = a.attcollation
                    where a.attrelid = t.relation and a.attnum = (c.c).position
                ),
                'topic', (c.c).topic, 'values', to_jsonb((c.c).enum_values),
                'parent', (select p.name from sync_internal.tables p where p.table_id = (c.c).parent_id),
                'decode', sync_internal.decode_expression(c.c, '$value$')
            )), '{}')
            from (select r.columns[g.i] as c from generate_subscripts(r.columns, 1) g (i)) c
        ),
        'children', (
            select coalesce(
                jsonb_agg(jsonb_build_object('table', ct.name, 'key', cc.name) order by ct.name, cc.name), '[]'
            )
            from sync_internal.columns cc join sync_internal.tables ct on ct.table_id = cc.table_id
            where cc.parent_id = t.table_id
        )
    )
    from sync_internal.tables t
    cross join lateral (
        select bool_or(g.readable) filter (where (g."column").column_name = t.id_column) as readable,
            array_agg(g."column") filter (where g.readable) as columns
        from sync_internal.granted_columns(t.table_id, p_role) g
    ) r
    where t.table_id = p_table_id
$$;

comment on function sync_internal.table_meta(integer, text) is 'What reading needs to know of a live table.';

-- The same for whoever is reading; null where there is no such table. PT503 where it has changed since.
create or replace function sync_internal.meta_of(p_table text, p_variant text)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    return case p_variant
        when 'authenticated' then sync_internal.meta_authenticated(p_table)
        when 'service_role' then sync_internal.meta_service_role(p_table)
        else sync_internal.meta_anon(p_table)
    end;
end
$$;

comment on function sync_internal.meta_of(text, text) is 'What reading needs to know of a live table.';
grant execute on function sync_internal.meta_of(text, text) to anon, authenticated, service_role;
