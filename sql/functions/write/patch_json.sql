-- Applying one operation inside a JSON document. These functions know nothing of rows and rights; the same rules stand
-- in every other implementation and are proven by the shared vectors.

-- PT400 bad_value for a number no double can hold, PT422 for a document deeper than max_depth. p_depth: how deep the
-- value will hang in its document.
create or replace function sync_internal.check_json(p_value jsonb, p_depth integer)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'number' then
        perform sync_internal.to_number(p_value);
    elsif jsonb_typeof(p_value) in ('object', 'array') then
        if jsonb_path_exists(
            p_value, '$.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))'
        ) then
            perform sync_internal.refuse(400, 'bad_value', 'The number is too large');
        end if;
        -- Level n of a container holds something: the document is at least n deep.
        if jsonb_path_exists(
            p_value, format('strict $.**{%s}', greatest(sync_internal.setting('max_depth') - p_depth, 0))::jsonpath
        ) then
            perform sync_internal.refuse_limit(422, 'max_depth');
        end if;
        if jsonb_path_exists(
            p_value,
            'strict $.** ? (@.type() == "array" && @.size() > $most)',
            jsonb_build_object('most', sync_internal.setting('max_list_items'))
        ) then
            perform sync_internal.refuse_limit(422, 'max_list_items');
        end if;
    end if;
end
$$;

-- PT400 for numbers that no double can hold, looked for only where the text shows an exponent of three digits or more:
-- such a number of nine characters prints as a hundred thousand, so it must be found before anything is printed.
-- p_transactions: the value is a list of transactions, whose unused fields may hold anything.
create or replace function sync_internal.check_numbers(p_text text, p_value jsonb, p_transactions boolean)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_within constant text := '.** ? (@.type() == "number" '
        '&& (@ > 1.8e308 || @ < -1.8e308 || @ != 0 && @ < 1e-1000 && @ > -1e-1000))';
begin
    if p_text !~ '[0-9][eE][+-]?[0-9]{3}' then
        return true;
    elsif (case
        when p_transactions then jsonb_path_exists(p_value, ('$[*].operations' || v_within)::jsonpath)
            or jsonb_path_exists(p_value, ('$[*].expect' || v_within)::jsonpath)
            or jsonb_path_exists(p_value, ('$[*].authorId' || v_within)::jsonpath)
        else jsonb_path_exists(p_value, ('$' || v_within)::jsonpath)
    end) then
        perform sync_internal.refuse(400, 'bad_value', 'The number is too large');
    end if;
    return true;
end
$$;

comment on function sync_internal.check_numbers(text, jsonb, boolean)
is 'Refuses numbers that print as far more than was sent.';
grant execute on function sync_internal.check_numbers(text, jsonb, boolean)
to anon, authenticated, service_role, rowcast_gateway;

-- listInsert and listRemove on a whole list. p_list: null or JSON null counts as no list.
create or replace function sync_internal.patch_list(p_list jsonb, p_op jsonb)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_value constant jsonb := p_op -> 'value';
    v_position constant jsonb := p_op -> 'position';
    v_where text;
    v_anchor jsonb;
    v_rest jsonb;
    v_at integer;
begin
    if p_op ->> 'type' = 'listInsert' then
        if v_position is null or v_position = '"append"' then
            v_where := 'append';
        elsif v_position = '"prepend"' then
            v_where := 'prepend';
        elsif jsonb_typeof(v_position) = 'object' and v_position ? 'before' and v_position - 'before' = '{}' then
            v_where := 'before';
            v_anchor := v_position -> 'before';
        elsif jsonb_typeof(v_position) = 'object' and v_position ? 'after' and v_position - 'after' = '{}' then
            v_where := 'after';
            v_anchor := v_position -> 'after';
        else
            perform sync_internal.refuse(
                400, 'bad_request', 'A position is "prepend", "append", {"before": value} or {"after": value}'
            );
        end if;
    end if;

    if p_list is null or jsonb_typeof(p_list) = 'null' then
        return case when v_where is null then p_list else jsonb_build_array(v_value) end;
    elsif jsonb_typeof(p_list) <> 'array' then
        perform sync_internal.refuse(
            400, 'not_a_list', 'There is no list at this path', jsonb_build_object('key', p_op -> 'key')
        );
    end if;

    if jsonb_typeof(v_value) = 'string' and not p_list ? (v_value #>> '{}') then
        -- A text that is not in the list, the usual case, needs no look at each element.
        v_rest := p_list;
    else
        -- jsonb equality: deep, whatever the order of keys, 1 = 1.0.
        select coalesce(jsonb_agg(e.value order by e.n) filter (where e.value <> v_value), '[]')
        into v_rest
        from jsonb_array_elements(p_list) with ordinality e (value, n);
    end if;

    if v_where is null then
        return v_rest;
    elsif jsonb_array_length(v_rest) >= sync_internal.setting('max_list_items') then
        perform sync_internal.refuse_limit(422, 'max_list_items');
    end if;

    -- How many elements of the rest stand before the value.
    if v_anchor = v_value and jsonb_array_length(v_rest) < jsonb_array_length(p_list) then
        select min(e.n) - 1 into v_at
        from jsonb_array_elements(p_list) with ordinality e (value, n)
        where e.value = v_value;
    elsif v_where in ('before', 'after') then
        select case v_where
            when 'before' then coalesce(min(e.n) - 1, 0)
            else coalesce(min(e.n), jsonb_array_length(v_rest))
        end
        into v_at
        from jsonb_array_elements(v_rest) with ordinality e (value, n)
        where e.value = v_anchor;
    else
        v_at := case v_where when 'prepend' then 0 else jsonb_array_length(v_rest) end;
    end if;
    return jsonb_insert(v_rest, array[v_at::text], v_value);
end
$$;

-- One operation at the end of its path. SQL null in: nothing there; SQL null out: remove what is there.
create or replace function sync_internal.patch_leaf(p_old jsonb, p_op jsonb)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_old numeric;
    v_sum numeric;
begin
    case p_op ->> 'type'
        when 'set' then
            return p_op -> 'value';
        when 'set-now' then
            return to_jsonb(sync_internal.wire_time(sync.now()));
        when 'increment' then
            if p_old is null or jsonb_typeof(p_old) = 'null' then
                v_old := 0;
            elsif jsonb_typeof(p_old) = 'number' then
                v_old := p_old::numeric;
            else
                perform sync_internal.refuse(
                    400, 'not_a_number', 'There is no number at this path', jsonb_build_object('key', p_op -> 'key')
                );
            end if;
            if jsonb_typeof(p_op -> 'by') <> 'number' then
                perform sync_internal.refuse_type('a number');
            end if;
            v_sum := v_old + sync_internal.to_number(p_op -> 'by');
            if v_sum = trunc(v_sum) and abs(v_sum) <= 9007199254740991 and v_old = trunc(v_old) then
                return to_jsonb(trunc(v_sum));
            elsif abs(v_sum) > 1.7976931348623157e308 then
                perform sync_internal.refuse(400, 'bad_value', 'The number is too large');
            end if;
            -- Sums of fractions are sums of doubles, as in every client.
            return sync_internal.float_json(
                sync_internal.to_float(to_jsonb(v_old)) + sync_internal.to_float(p_op -> 'by')
            );
        else
            return sync_internal.patch_list(p_old, p_op);
    end case;
end
$$;

-- One operation at p_path inside p_old. Missing and null intermediates become objects; a scalar on the way, or a list
-- met by a name, is PT400 bad_path; an index outside its list PT400 bad_index. Removing what is not there changes
-- nothing and makes nothing.
create or replace function sync_internal.patch_json(p_old jsonb, p_op jsonb, p_path text[])
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_head constant text := p_path[1];
    v_old constant jsonb := nullif(p_old, 'null');
    v_new jsonb;
begin
    if p_path is null or p_path = '{}' then
        return sync_internal.patch_leaf(p_old, p_op);
    end if;

    if v_old is null then
        v_new := sync_internal.patch_json(null, p_op, p_path[2:]);
        return case when v_new is null then p_old else jsonb_build_object(v_head, v_new) end;
    elsif jsonb_typeof(v_old) = 'object' then
        v_new := sync_internal.patch_json(v_old -> v_head, p_op, p_path[2:]);
        return case when v_new is null then v_old - v_head else jsonb_set(v_old, array[v_head], v_new) end;
    elsif jsonb_typeof(v_old) = 'array' and v_head ~ '^(0|[1-9][0-9]{0,8})$' then
        if v_head::integer >= jsonb_array_length(v_old) then
            perform sync_internal.refuse(
                400, 'bad_index', 'The list is shorter than this index', jsonb_build_object('key', p_op -> 'key')
            );
        end if;
        v_new := sync_internal.patch_json(v_old -> v_head::integer, p_op, p_path[2:]);
        return case when v_new is null then v_old - v_head::integer else jsonb_set(v_old, array[v_head], v_new) end;
    end if;
    perform sync_internal.refuse(
        400, 'bad_path', 'The path goes through a value that has no such members',
        jsonb_build_object('key', p_op -> 'key')
    );
end
$$;

comment on function sync_internal.patch_json(jsonb, jsonb, text[]) is 'Applies one operation inside a JSON document.';
grant execute on function
sync_internal.check_json(jsonb, integer), sync_internal.patch_list(jsonb, jsonb),
sync_internal.patch_leaf(jsonb, jsonb),
sync_internal.patch_json(jsonb, jsonb, text[])
to anon, authenticated, service_role;
