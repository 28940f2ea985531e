-- The segments of an operation's key: a dotted string or a list of strings. Raises PT400 bad_path for an empty
-- segment or one that names the machinery of JavaScript objects, PT422 beyond max_path segments.
create or replace function sync_internal.split_path(p_key jsonb)
returns text[]
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_path text[];
begin
    if jsonb_typeof(p_key) = 'string' then
        -- string_to_array gives an empty list for the empty string.
        v_path := coalesce(nullif(string_to_array(p_key #>> '{}', '.'), '{}'), array['']);
    elsif jsonb_typeof(p_key) = 'array' and jsonb_array_length(p_key) = 1 and jsonb_typeof(p_key -> 0) = 'string' then
        -- All that creates name: a tenth of what they cost would go into the way below.
        v_path := array[p_key ->> 0];
    elsif jsonb_typeof(p_key) = 'array' and jsonb_array_length(p_key) > 0
        and not jsonb_path_exists(p_key, 'strict $[*] ? (@.type() != "string")') then
        v_path := array(select e.value from jsonb_array_elements_text(p_key) with ordinality e (value, n) order by e.n);
    else
        perform sync_internal.refuse(400, 'bad_request', 'A key is a dotted string or a list of strings');
    end if;
    if cardinality(v_path) > sync_internal.setting('max_path') then
        perform sync_internal.refuse_limit(422, 'max_path');
    end if;
    if v_path && array['', '__proto__', 'constructor', 'prototype'] then
        perform sync_internal.refuse(400, 'bad_path', 'A path has no empty segments and none of the reserved names');
    end if;
    return v_path;
end
$$;

comment on function sync_internal.split_path(jsonb) is 'The segments of an operation''s key.';
grant execute on function sync_internal.split_path(jsonb) to anon, authenticated, service_role;

create or replace function sync_internal.refuse_limit(p_status integer, p_limit text)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    perform sync_internal.refuse(
        p_status,
        case p_status when 413 then 'too_large' else 'too_many' end,
        format('More than %s allows (%s)', p_limit, sync_internal.setting(p_limit)),
        jsonb_build_object('limit', p_limit)
    );
end
$$;

comment on function sync_internal.refuse_limit(integer, text) is 'Raises PT413 or PT422 naming the limit.';
grant execute on function sync_internal.refuse_limit(integer, text)
to anon, authenticated, service_role, rowcast_gateway;
