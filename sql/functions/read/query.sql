-- Records of one table by filter, in order, a page at a time, as far as the current role and identity may read them.
--
-- p_request: {"table", "where"?, "orderBy"?: [{key, dir}], "limit"?: 1 to 1000 (200), "after"?, "include"?: [relation],
-- "have"?: {id: version} (at most 10000)}.
-- Gives {"ids", "recordMap", "gone", "keys", "cursor", "next"?}. With have: ids is the whole page, recordMap what
-- differs from what the caller has, and what he has that changed and no longer matches; gone what of it he
-- may not read.
-- include: names along foreign keys, such as "comments" or "boardId.workspaceId", up to three deep.
-- Everything is read from one snapshot, that of the cursor: the function is stable. Raises PT400, PT422.
create or replace function sync.query(p_request jsonb)
returns json
language plpgsql
stable
parallel unsafe
security invoker
-- Text of this schema is read as it was written, whatever the session has set.
set standard_conforming_strings = on
as $$
declare
    v_variant constant text := sync_internal.variant();
    v_meta jsonb;
    v_where jsonb;
    v_order jsonb;
    v_limit integer;
    v_have jsonb;
    v_ids text[];
    v_versions bigint[];
    v_records text[];
    v_sets jsonb[];
    v_next text;
    v_keys text[];
    v_gone json;
    v_parts text[] := '{}';
    v_old record;
    v_include record;
begin
    v_meta := sync_internal.query_meta(p_request, v_variant);
    v_where := coalesce(p_request -> 'where', '{}');
    v_order := coalesce(p_request -> 'orderBy', '[]');
    v_have := coalesce(p_request -> 'have', '{}');
    if coalesce(jsonb_typeof(p_request -> 'limit'), 'number') <> 'number'
        or not coalesce((p_request -> 'limit')::numeric, 200) between 1 and 1000
        or (p_request -> 'limit')::numeric <> trunc((p_request -> 'limit')::numeric) then
        perform sync_internal.refuse(400, 'bad_request', 'limit is a whole number from 1 to 1000');
    elsif jsonb_typeof(v_have) <> 'object' or exists (
        select from jsonb_each(v_have) h where jsonb_typeof(h.value) <> 'number'
    ) then
        perform sync_internal.refuse(400, 'bad_request', 'have is {id: version}');
    elsif (select count(*) from jsonb_object_keys(v_have)) > 10000 then
        perform sync_internal.refuse(422, 'too_many', 'have names more than 10000 records', '{"limit": "have"}');
    end if;
    v_limit := coalesce((p_request -> 'limit')::integer, 200);

    if (v_meta ->> 'readable')::boolean then
        execute format(
            'select array_agg(p.id), array_agg(p.version), array_agg(p.record), array_agg(p.keyset) '
            'from (%s limit %s) p',
            sync_internal.page_sql(v_meta, v_where, v_order, p_request -> 'after'), v_limit + 1
        ) into v_ids, v_versions, v_records, v_sets;
    end if;
    if cardinality(v_ids) > v_limit then
        v_next := translate(encode(convert_to(v_sets[v_limit]::text, 'UTF8'), 'base64'), E'+/\n', '-_');
        v_ids := v_ids[:v_limit];
    end if;
    v_ids := coalesce(v_ids, '{}');

    for i in 1 .. cardinality(v_ids) loop
        if (v_have -> v_ids[i])::numeric is distinct from v_versions[i] then
            v_parts := v_parts || format('%s:%s', to_json(v_ids[i]), v_records[i]);
        end if;
    end loop;
    if v_have <> '{}' then
        select
            array_agg(format('%s:%s', to_json(r.id), r.record)) filter (
                where r.id is not null and (v_have -> h.id)::numeric is distinct from r.version
            ),
            json_agg(json_build_object('table', v_meta ->> 'name', 'id', h.id)) filter (where r.id is null)
        into v_old
        from (select k.id from jsonb_object_keys(v_have) k (id) where k.id <> all (v_ids)) h
        left join sync_internal.rows_of(
            v_meta ->> 'name',
            sync_internal.well_formed(
                v_meta ->> 'name',
                (select jsonb_agg(k.id) from jsonb_object_keys(v_have) k (id) where k.id <> all (v_ids))
            ),
            v_variant, true
        ) r on r.id = h.id;
        v_parts := v_parts || coalesce(v_old.array_agg, '{}');
        v_gone := v_old.json_agg;
    end if;
    v_keys := sync_internal.covering_keys(v_meta, v_where);

    v_parts := array[format('{%s:{%s}}', to_json(v_meta ->> 'name'), array_to_string(v_parts, ','))];
    for v_include in select i.value as path from jsonb_array_elements(coalesce(p_request -> 'include', '[]')) i loop
        declare
            v_more record;
        begin
            select * into v_more from sync_internal.include(v_meta, v_ids, v_include.path, v_variant);
            v_parts := v_parts || v_more.maps;
            v_keys := v_keys || v_more.keys;
        end;
    end loop;
    -- The cursor first: gateways seal it there without reading on.
    return json_build_object(
        'cursor', sync_internal.cursor_now(), 'ids', v_ids, 'recordMap', sync_internal.merge_maps(v_parts)::json, 'gone', coalesce(v_gone, '[]'),
        'keys', (select coalesce(json_agg(distinct k.key), '[]') from unnest(v_keys) k (key)),
        'next', v_next
    );
end
$$;

comment on function sync.query(jsonb) is 'Records of one table by filter, in order, a page at a time.';
grant execute on function sync.query(jsonb) to anon, authenticated, service_role;

-- The table a query is about. PT400 where the request has another form or there is no such table.
create or replace function sync_internal.query_meta(p_request jsonb, p_variant text)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_meta jsonb;
    v_order constant jsonb := coalesce(p_request -> 'orderBy', '[]');
begin
    if jsonb_typeof(p_request) is distinct from 'object'
        or jsonb_typeof(p_request -> 'table') is distinct from 'string' then
        perform sync_internal.refuse(400, 'bad_request', 'A query names its table');
    end if;
    v_meta := sync_internal.meta_of(p_request ->> 'table', p_variant);
    if v_meta is null then
        perform sync_internal.refuse(
            400, 'unknown_table', 'There is no such table', jsonb_build_object('table', p_request ->> 'table')
        );
    elsif jsonb_typeof(coalesce(p_request -> 'after', '""')) <> 'string'
        or jsonb_typeof(coalesce(p_request -> 'include', '[]')) <> 'array' then
        perform sync_internal.refuse(400, 'bad_request', 'after is a text, include a list');
    end if;
    perform sync_internal.check_order(v_meta, v_order);
    return v_meta;
end
$$;

comment on function sync_internal.query_meta(jsonb, text) is 'The table a query is about.';

-- The rows of a page, in order, as SQL: id, version, record, keyset. p_among: a condition of SQL that they meet as well.
create or replace function sync_internal.page_sql(
    p_meta jsonb, p_where jsonb, p_order jsonb, p_after jsonb, p_among text default 'true'
)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select format(
        'select t.%I::text as id, %s as version, %s as record, %s as keyset from %s t where %s and %s%s order by %s',
        p_meta ->> 'id',
        case
            when (p_meta -> 'versioned')::boolean then format('t.%I::bigint', p_meta ->> 'version')
            else '0::bigint'
        end,
        p_meta ->> 'record', sync_internal.keyset_expression(p_meta, p_order),
        p_meta ->> 'relation', p_among, sync_internal.filter_sql(p_meta, p_where),
        case
            when p_after is not null then ' and ' || sync_internal.after_sql(p_meta, p_order, p_after #>> '{}')
            else ''
        end,
        sync_internal.order_sql(p_meta, p_order)
    )
$$;

comment on function sync_internal.page_sql(jsonb, jsonb, jsonb, jsonb, text) is 'The rows of a page, as SQL.';

-- The narrowest keys to subscribe to that cover a filter: records, collections, or the table.
create or replace function sync_internal.covering_keys(p_meta jsonb, p_where jsonb)
returns text[]
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_key text;
    v_values jsonb;
begin
    for v_key, v_values in
        select c.key, v.list
        from jsonb_each(p_meta -> 'columns') c
        cross join lateral (
            select case
                when jsonb_typeof(p_where -> c.key) = 'object' and p_where -> c.key ? 'eq'
                    then jsonb_build_array(p_where -> c.key -> 'eq')
                when jsonb_typeof(p_where -> c.key -> 'in') = 'array' then p_where -> c.key -> 'in'
                when jsonb_typeof(p_where -> c.key) <> 'object' then jsonb_build_array(p_where -> c.key)
            end
        ) v (list)
        where p_where ? c.key and (c.key = 'id' or (c.value -> 'topic')::boolean)
            and v.list is not null and jsonb_array_length(v.list) <= 100
            and not v.list @> 'null'
        order by c.key <> 'id', jsonb_array_length(v.list), c.key
        limit 1
    loop
        return array(
            select distinct format(
                case when v_key = 'id' then '%1$s:%3$s' else '%1$s?%2$s=%3$s' end,
                p_meta ->> 'name', v_key, sync_internal.percent_encode(k.value)
            )
            from jsonb_array_elements(v_values) e (value)
            cross join lateral (select sync_internal.key_value(p_meta -> 'columns' -> v_key, e.value)) k (value)
            where k.value is not null
        );
    end loop;
    return case when (p_meta -> 'wholeTable')::boolean then array[p_meta ->> 'name'] else '{}' end;
end
$$;

comment on function sync_internal.covering_keys(jsonb, jsonb) is 'The narrowest keys that cover a filter.';

-- What hangs on given records along foreign keys, one level a name. Gives recordMaps and the keys that cover them.
create or replace function sync_internal.include(
    p_meta jsonb, p_ids text[], p_path jsonb, p_variant text, out maps text[], out keys text[]
)
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_meta jsonb := p_meta;
    v_ids text[] := p_ids;
    v_name text;
    v_child jsonb;
    v_next jsonb;
    v_map text;
    v_most constant bigint := sync_internal.setting('max_list_items');
begin
    maps := '{}';
    keys := '{}';
    if jsonb_typeof(p_path) <> 'string' or cardinality(string_to_array(p_path #>> '{}', '.')) not between 1 and 3 then
        perform sync_internal.refuse(400, 'bad_request', 'An include is a name, or up to three joined by dots');
    end if;
    foreach v_name in array string_to_array(p_path #>> '{}', '.') loop
        v_child := (
            select c.value from jsonb_array_elements(v_meta -> 'children') c where c.value ->> 'table' = v_name limit 1
        );
        v_next := sync_internal.meta_of(
            coalesce(v_meta #>> array['columns', v_name, 'parent'], v_child ->> 'table'), p_variant
        );
        if v_next is null then
            perform sync_internal.refuse(
                400, 'unknown_relation', 'There is no such relation', jsonb_build_object('key', v_name)
            );
        elsif v_meta #>> array['columns', v_name, 'parent'] is not null then
            execute format(
                'select array_agg(distinct t.%I::text) from %s t where t.%I = any ($1::%s[]) and t.%1$I is not null',
                v_meta #>> array['columns', v_name, 'column'], v_meta ->> 'relation', v_meta ->> 'id',
                v_meta #>> array['columns', 'id', 'type']
            ) into v_ids using v_ids;
            keys := keys || array(
                select format('%s:%s', v_next ->> 'name', sync_internal.percent_encode(i.id)) from unnest(v_ids) i (id)
            );
            select format(
                '{%s:{%s}}', to_json(v_next ->> 'name'), string_agg(format('%s:%s', to_json(r.id), r.record), ',')
            )
            into v_map
            from sync_internal.rows_of(v_next ->> 'name', coalesce(v_ids, '{}'), p_variant, true) r;
        elsif not (v_next ->> 'readable')::boolean or v_next -> 'columns' -> (v_child ->> 'key') is null then
            v_ids := '{}';
            v_map := null;
        else
            keys := keys || case
                when (v_next #>> array['columns', v_child ->> 'key', 'topic'])::boolean then array(
                    select format('%s?%s=%s', v_next ->> 'name', v_child ->> 'key', sync_internal.percent_encode(i.id))
                    from unnest(v_ids) i (id)
                )
                when (v_next -> 'wholeTable')::boolean then array[v_next ->> 'name']
                else '{}'
            end;
            execute format(
                'select array_agg(p.id), format(''{%%s:{%%s}}'', to_json(%L::text), '
                'string_agg(to_json(p.id) || '':'' || p.record, '','')) '
                'from (%s limit %s) p',
                v_next ->> 'name',
                sync_internal.page_sql(
                    v_next, '{}', '[]', null, format(
                        't.%I = any (%L::%s[])', v_next #>> array['columns', v_child ->> 'key', 'column'], v_ids,
                        v_next #>> array['columns', v_child ->> 'key', 'type']
                    )
                ), v_most + 1
            ) into v_ids, v_map;
            if cardinality(v_ids) > v_most then
                perform sync_internal.refuse(
                    422, 'too_many', 'The include holds too many records', '{"limit": "max_list_items"}'
                );
            end if;
        end if;
        if v_map is not null then
            maps := maps || v_map;
        end if;
        v_ids := coalesce(v_ids, '{}');
        v_meta := v_next;
    end loop;
end
$$;

comment on function sync_internal.include(jsonb, text[], jsonb, text)
is 'What hangs on given records along foreign keys.';

-- Opens the cursor rowcast_page on a query without a page's limit, one record a row, in any order unless one is asked
-- for, and gives the header. The header's
-- cursor is taken first: an older one only repeats, a newer one would lose.
create or replace function sync_internal.open_page(p_request jsonb)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_meta constant jsonb := sync_internal.query_meta(p_request, sync_internal.variant());
    v_where constant jsonb := coalesce(p_request -> 'where', '{}');
    v_header text;
    v_page refcursor := 'rowcast_page';
begin
    if p_request ?| '{have,include}' then
        perform sync_internal.refuse(400, 'bad_request', 'have and include are for pages, not for streams');
    elsif coalesce(jsonb_typeof(p_request -> 'limit'), 'number') <> 'number'
        or not coalesce((p_request -> 'limit')::numeric, 1) between 1 and 999999999
        or (p_request -> 'limit')::numeric <> trunc((p_request -> 'limit')::numeric) then
        perform sync_internal.refuse(400, 'bad_request', 'limit is a whole number');
    end if;
    v_header := json_build_object(
        'cursor', sync_internal.cursor_now(), 'table', v_meta ->> 'name',
        'keys', sync_internal.covering_keys(v_meta, v_where)
    );
    open v_page no scroll for execute case
        when (v_meta ->> 'readable')::boolean then format(
            'select %s from %s t where %s%s%s limit %s',
            v_meta ->> 'record', v_meta ->> 'relation', sync_internal.filter_sql(v_meta, v_where),
            case when p_request ? 'after'
                then ' and ' || sync_internal.after_sql(
                    v_meta, coalesce(p_request -> 'orderBy', '[]'), p_request ->> 'after'
                )
            end,
            -- Sorting what nobody asked to be sorted would take as long as reading it.
            case when p_request ?| '{orderBy,after,limit}'
                then ' order by ' || sync_internal.order_sql(v_meta, coalesce(p_request -> 'orderBy', '[]'))
            end,
            coalesce((p_request -> 'limit')::integer::text, 'all')
        )
        else 'select null::text where false'
    end;
    return v_header;
end
$$;

comment on function sync_internal.open_page(jsonb) is 'Opens a large result as a cursor.';

grant execute on function
sync_internal.query_meta(jsonb, text), sync_internal.page_sql(jsonb, jsonb, jsonb, jsonb, text),
sync_internal.covering_keys(jsonb, jsonb), sync_internal.include(jsonb, text[], jsonb, text),
sync_internal.open_page(jsonb)
to anon, authenticated, service_role;
