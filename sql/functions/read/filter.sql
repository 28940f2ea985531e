-- From the wire's filters and orders to SQL. Names come from the registry and are quoted there; values are
-- literals that pass through the decoding functions, so that a wrong type is refused like everywhere else.

-- One comparison. Three-valued as in SQL: null compares to nothing, but is tells it. Text compares by code point.
create or replace function sync_internal.comparison(p_key text, p_column jsonb, p_operator text, p_value jsonb)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_kind constant text := p_column ->> 'kind';
    v_source constant text := format('t.%I', p_column ->> 'column');
    v_value constant text := case v_kind
        when 'list' then sync_internal.list_value(
            p_column, case p_operator when 'contains' then jsonb_build_array(p_value) else p_value end
        )
        else replace(p_column ->> 'decode', '$value$', format('%L::jsonb', p_value))
    end;
    v_place constant jsonb := jsonb_build_object('key', p_key);
    -- As a list of what is compared: of an enum, or of a list of one, each has to be a value there is.
    v_given constant jsonb := case
        when v_kind = 'list' and p_operator <> 'contains' then p_value else jsonb_build_array(p_value)
    end;
begin
    -- The value is tried here, so that a wrong one is refused with its key, before anything is read.
    if p_operator in ('eq', 'neq', 'lt', 'lte', 'gt', 'gte') then
        perform sync_internal.try_value(p_column, p_value, p_key);
    elsif p_operator = 'contains' and v_kind = 'list' then
        perform sync_internal.try_value(p_column, v_given, p_key);
    end if;
    if p_operator not in ('is', 'in') and jsonb_typeof(p_column -> 'values') = 'array'
        and jsonb_typeof(v_given) = 'array' and exists (
            select from jsonb_array_elements(v_given) e (value)
            where jsonb_typeof(e.value) = 'string' and not p_column -> 'values' @> e.value
        ) then
        perform sync_internal.refuse(400, 'wrong_type', 'There is no such value', v_place);
    end if;
    case
        when p_operator = 'is' then
            if p_value = 'null' then
                return format('%s is null', v_source);
            elsif p_value = '"notNull"' then
                return format('%s is not null', v_source);
            end if;
            perform sync_internal.refuse(400, 'bad_request', 'is takes null or "notNull"', v_place);
        when p_operator in ('eq', 'neq') then
            if v_kind = 'list' then
                return format(
                    'to_jsonb(%s) %s %s', v_source, case p_operator when 'eq' then '=' else '<>' end, v_value
                );
            elsif v_kind = 'other' then
                perform sync_internal.refuse(400, 'wrong_type', 'This key cannot be compared', v_place);
            end if;
            return format('%s %s %s',
                case
                    when p_column ->> 'type' = 'real' or not (p_column -> 'exact')::boolean
                        then sync_internal.sort_expression(p_column)
                    else v_source
                end,
                case p_operator when 'eq' then '=' else '<>' end,
                case when v_kind in ('enum') then format('(%s)::%s', v_value, p_column ->> 'type') else v_value end);
        when p_operator = 'in' then
            if jsonb_typeof(p_value) <> 'array' or jsonb_array_length(p_value) > 1000 then
                perform sync_internal.refuse(400, 'bad_request', 'in takes a list of at most 1000 values', v_place);
            elsif p_value = '[]' then
                return 'false';
            end if;
            return (
                select format('(%s)', string_agg(sync_internal.comparison(p_key, p_column, 'eq', e.value), ' or '))
                from jsonb_array_elements(p_value) e (value)
            );
        when p_operator in ('lt', 'lte', 'gt', 'gte') then
            if v_kind in ('json', 'list', 'other', 'bytea') then
                perform sync_internal.refuse(400, 'wrong_type', 'This key has no order', v_place);
            end if;
            return format(
                '%s %s %s', sync_internal.sort_expression(p_column),
                case p_operator when 'lt' then '<' when 'lte' then '<=' when 'gt' then '>' else '>=' end,
                case when v_kind in ('text', 'enum') then format('%s collate "C"', v_value) else v_value end
            );
        when p_operator = 'contains' then
            if v_kind = 'text' then
                perform sync_internal.try_value(p_column, p_value, p_key);
                return format('strpos(%s, %s) > 0', sync_internal.sort_expression(p_column), v_value);
            elsif v_kind = 'list' then
                return format('to_jsonb(%s) @> %s', v_source, v_value);
            elsif v_kind = 'json' then
                return format(
                    'exists (select from jsonb_array_elements('
                    'case jsonb_typeof(%1$s) when ''array'' then %1$s else ''[]'' end) e '
                    'where e.value = %2$L::jsonb)', v_source, p_value
                );
            end if;
            perform sync_internal.refuse(400, 'wrong_type', 'contains is for texts and lists', v_place);
        else
            perform sync_internal.refuse(400, 'unknown_operator', 'There is no such operator', v_place);
    end case;
end
$$;

comment on function sync_internal.comparison(text, jsonb, text, jsonb) is 'One comparison, as SQL.';

-- A list of the wire as to_jsonb shows a native one with the same elements, whatever their exact type.
create or replace function sync_internal.list_value(p_column jsonb, p_value jsonb)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select format(
        'to_jsonb(sync_internal.to_texts(%L::jsonb, %L)::%s[])', p_value, p_column ->> 'elementKind',
        case p_column ->> 'elementKind'
            when 'enum' then 'text' when 'float' then 'double precision' else p_column ->> 'elementKind'
        end
    )
$$;

comment on function sync_internal.list_value(jsonb, jsonb) is 'A list of the wire, as SQL.';

-- PT400 wrong_type with the key where the value is not one of the column's.
create or replace function sync_internal.try_value(p_column jsonb, p_value jsonb, p_key text)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    perform case p_column ->> 'kind'
        when 'json' then null
        when 'other' then null
        when 'list' then sync_internal.to_texts(p_value, p_column ->> 'elementKind')::text
        when 'text' then sync_internal.to_text(p_value)
        when 'enum' then sync_internal.to_text(p_value)
        when 'boolean' then sync_internal.to_boolean(p_value)::text
        when 'integer' then sync_internal.to_integer(p_value)::text
        when 'bigint' then sync_internal.to_bigint(p_value)::text
        when 'numeric' then sync_internal.to_numeric(p_value)::text
        when 'float' then sync_internal.to_float(p_value)::text
        when 'uuid' then sync_internal.to_uuid(p_value)::text
        when 'timestamptz' then sync_internal.to_timestamptz(p_value)::text
        when 'timestamp' then sync_internal.to_timestamp(p_value)::text
        when 'date' then sync_internal.to_date(p_value)::text
        when 'bytea' then sync_internal.to_bytea(p_value)::text
    end;
exception
    when sqlstate 'PT400' or data_exception then
        perform sync_internal.refuse(
            400, 'wrong_type', 'The value does not fit the type of the key',
            jsonb_build_object('key', p_key, 'expected', p_column ->> 'kind')
        );
end
$$;

comment on function sync_internal.try_value(jsonb, jsonb, text) is 'Refuses a value that is not one of the column''s.';

-- What a column is ordered by: texts and enums by code point, as in every client.
create or replace function sync_internal.sort_expression(p_column jsonb)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_column ->> 'kind' in ('text', 'enum') then format('t.%I::text collate "C"', p_column ->> 'column')
        -- As the wire shows it: the nearest double of a real is another number.
        when p_column ->> 'type' = 'real'
            then format('(sync_internal.float_json(t.%I) #>> ''{}'')::double precision', p_column ->> 'column')
        else format('t.%I', p_column ->> 'column')
    end
$$;

comment on function sync_internal.sort_expression(jsonb) is 'What a column is ordered by.';

-- The whole filter: {key: value} or {key: {operator: value, ...}}, all of which must hold.
create or replace function sync_internal.filter_sql(p_meta jsonb, p_where jsonb)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_parts text[] := '{}';
    v_key text;
    v_condition jsonb;
    v_column jsonb;
begin
    if jsonb_typeof(p_where) <> 'object' then
        perform sync_internal.refuse(400, 'bad_request', 'where is an object');
    end if;
    -- Before any value is printed: a number of nine characters can print as a hundred thousand.
    perform sync_internal.check_json(p_where, 0);
    for v_key, v_condition in select w.key, w.value from jsonb_each(p_where) w loop
        v_column := p_meta -> 'columns' -> v_key;
        if v_column is null then
            perform sync_internal.refuse(400, 'unknown_key', 'There is no such key', jsonb_build_object('key', v_key));
        elsif jsonb_typeof(v_condition) <> 'object' then
            v_parts := v_parts || sync_internal.comparison(v_key, v_column, 'eq', v_condition);
        elsif v_condition = '{}' then
            perform sync_internal.refuse(
                400, 'bad_request', 'A condition names an operator', jsonb_build_object('key', v_key)
            );
        else
            v_parts := v_parts || array(
                select sync_internal.comparison(v_key, v_column, o.key, o.value) from jsonb_each(v_condition) o
            );
        end if;
    end loop;
    if p_meta ->> 'softDelete' is not null and not p_where ? (p_meta ->> 'softDelete') then
        v_parts := v_parts || format(
            case p_meta #>> array['columns', p_meta ->> 'softDelete', 'kind']
                when 'boolean' then 't.%I is not true'
                else 't.%I is null'
            end,
            p_meta ->> 'softDeleteColumn'
        );
    end if;
    return coalesce(nullif(array_to_string(v_parts, ' and '), ''), 'true');
end
$$;

comment on function sync_internal.filter_sql(jsonb, jsonb) is 'A filter, as SQL.';

-- PT400 unless orderBy is a list of at most five {key, dir?} on keys that have an order.
create or replace function sync_internal.check_order(p_meta jsonb, p_order jsonb)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_part jsonb;
begin
    if jsonb_typeof(p_order) <> 'array' or jsonb_array_length(p_order) > 5 then
        perform sync_internal.refuse(400, 'bad_request', 'orderBy is a list of at most five {key, dir}');
    end if;
    for v_part in select o.value from jsonb_array_elements(p_order) o (value) loop
        if jsonb_typeof(v_part) <> 'object' or jsonb_typeof(v_part -> 'key') is distinct from 'string'
            or coalesce(v_part -> 'dir', '"asc"') not in ('"asc"', '"desc"')
            or v_part - '{key,dir}'::text[] <> '{}' then
            perform sync_internal.refuse(400, 'bad_request', 'An order is {key, dir: "asc" or "desc"}');
        elsif p_meta -> 'columns' -> (v_part ->> 'key') is null then
            perform sync_internal.refuse(
                400, 'unknown_key', 'There is no such key', jsonb_build_object('key', v_part ->> 'key')
            );
        elsif p_meta #>> array['columns', v_part ->> 'key', 'kind'] in ('json', 'list', 'other', 'bytea') then
            perform sync_internal.refuse(
                400, 'wrong_type', 'This key has no order', jsonb_build_object('key', v_part ->> 'key')
            );
        end if;
    end loop;
end
$$;

comment on function sync_internal.check_order(jsonb, jsonb) is 'Whether an order is well formed.';

-- The id as the last key of every order: by the code points of its text.
create or replace function sync_internal.id_order(p_meta jsonb)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case p_meta ->> 'idType'
        when 'uuid' then format('t.%I', p_meta ->> 'id')
        else format('t.%I::text collate "C"', p_meta ->> 'id')
    end
$$;

comment on function sync_internal.id_order(jsonb) is 'The id as the last key of every order.';

-- ORDER BY; nulls stand last in both directions.
create or replace function sync_internal.order_sql(p_meta jsonb, p_order jsonb)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select concat(
        string_agg(
            format(
                '%s %s nulls last, ', sync_internal.sort_expression(p_meta -> 'columns' -> (o.value ->> 'key')),
                coalesce(o.value ->> 'dir', 'asc')
            ), '' order by o.n
        ),
        sync_internal.id_order(p_meta)
    )
    from jsonb_array_elements(p_order) with ordinality o (value, n)
$$;

comment on function sync_internal.order_sql(jsonb, jsonb) is 'An order, as SQL.';

-- The text that says where a page ended, and the condition that goes on after it. The text holds the order's values of
-- the last row, whatever the session has set, and its id; the caller saw them all.
create or replace function sync_internal.keyset_expression(p_meta jsonb, p_order jsonb)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select format(
        'jsonb_build_array(%s)',
        concat(
            string_agg(
                format(
                    case
                        when k.kind = 'float' then 'sync_internal.float_json(%s) #>> ''{}'', '
                        when k.kind = 'timestamptz' then 'sync_internal.wire_time(%s), '
                        when k.kind in ('timestamp', 'date') then 'to_json(%s) #>> ''{}'', '
                        else '(%s)::text, '
                    end,
                    sync_internal.sort_expression(p_meta -> 'columns' -> (o.value ->> 'key'))
                ),
                '' order by o.n
            ),
            format('t.%I::text', p_meta ->> 'id')
        )
    )
    from jsonb_array_elements(p_order) with ordinality o (value, n)
    cross join lateral (select p_meta #>> array['columns', o.value ->> 'key', 'kind']) k (kind)
$$;

comment on function sync_internal.keyset_expression(jsonb, jsonb)
is 'Where a row stands in an order, as an expression.';

create or replace function sync_internal.after_sql(p_meta jsonb, p_order jsonb, p_after text)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_values jsonb;
    v_equal text := 'true';
    v_parts text[] := '{}';
    v_type text;
    v_value text;
    v_sort text;
    v_count constant integer := jsonb_array_length(p_order);
begin
    begin
        v_values := convert_from(decode(translate(p_after, '-_', '+/'), 'base64'), 'UTF8')::jsonb;
    exception
        when others then
            v_values := null;
    end;
    if jsonb_typeof(v_values) is distinct from 'array' or jsonb_array_length(v_values) <> v_count + 1
        or jsonb_path_exists(v_values, 'strict $[*] ? (@.type() != "string" && @.type() != "null")') then
        perform sync_internal.refuse(400, 'bad_request', 'after is the next of a page with the same order');
    end if;
    perform sync_internal.check_id(v_values -> v_count, p_meta ->> 'idType');
    for i in 0 .. v_count - 1 loop
        v_sort := sync_internal.sort_expression(p_meta -> 'columns' -> (p_order -> i ->> 'key'));
        if v_values -> i = 'null' then
            -- Nulls are last: nothing of another value follows.
            v_equal := format('%s and %s is null', v_equal, v_sort);
            continue;
        end if;
        v_type := p_meta #>> array['columns', p_order -> i ->> 'key', 'type'];
        v_type := case
            when p_meta #>> array['columns', p_order -> i ->> 'key', 'kind'] in ('text', 'enum') then 'text'
            when v_type = 'real' then 'double precision'
            else v_type
        end;
        if sync_internal.canonical_value(v_values ->> i, v_type) is null then
            perform sync_internal.refuse(400, 'bad_request', 'after is the next of a page with the same order');
        end if;
        v_value := format('%L::%s', v_values ->> i, v_type);
        v_parts := v_parts || format(
            '%s and (%s %s %s or %2$s is null)', v_equal, v_sort,
            case p_order -> i ->> 'dir' when 'desc' then '<' else '>' end, v_value
        );
        v_equal := format('%s and %s = %s', v_equal, v_sort, v_value);
    end loop;
    v_parts := v_parts || format(
        '%s and %s > %L%s', v_equal, sync_internal.id_order(p_meta), v_values ->> v_count,
        case p_meta ->> 'idType' when 'uuid' then '::uuid' else '::text' end
    );
    return '(' || array_to_string(v_parts, ' or ') || ')';
end
$$;

comment on function sync_internal.after_sql(jsonb, jsonb, text) is 'The condition that goes on after a page, as SQL.';

-- A value of the wire as a key writes it: through the column's type. Null where it is none of the type's.
create or replace function sync_internal.key_value(p_column jsonb, p_value jsonb)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_value text;
begin
    execute format('select (%s)::%s::text', replace(p_column ->> 'decode', '$value$', '$1'), p_column ->> 'type')
    into v_value using p_value;
    return v_value;
exception
    when data_exception or sqlstate 'PT400' then
        return null;
end
$$;

comment on function sync_internal.key_value(jsonb, jsonb) is 'A value of the wire as a key writes it.';

grant execute on function
sync_internal.comparison(text, jsonb, text, jsonb), sync_internal.list_value(jsonb, jsonb),
sync_internal.try_value(jsonb, jsonb, text),
sync_internal.sort_expression(jsonb), sync_internal.filter_sql(jsonb, jsonb), sync_internal.check_order(jsonb, jsonb),
sync_internal.id_order(jsonb), sync_internal.order_sql(jsonb, jsonb), sync_internal.keyset_expression(jsonb, jsonb),
sync_internal.after_sql(jsonb, jsonb, text), sync_internal.key_value(jsonb, jsonb)
to anon, authenticated, service_role;
