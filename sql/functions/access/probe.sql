-- Many users asked at once: one statement and one snapshot for all of them, the role and claims of each in turn.

-- Which of some records each of several users may read now. p_refs: {"tasks": ["id", ...]}. p_cursor: what the asker
-- has read of the feed. Gives {"seen": [{"tasks": [ids]}, ... in the order of p_claims], "overtaken": {"tasks": [ids]}},
-- the second being records with a later change, which may stand elsewhere by now. Null is seen by those whose session
-- has ended: one of them must not cost the others their answer.
--
-- Stable, so that every answer and what is overtaken belong to one snapshot.
create or replace function sync.gateway_probe(p_claims text[], p_refs jsonb, p_cursor text)
returns text
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_overtaken constant jsonb := sync_internal.overtaken(p_refs, p_cursor);
    v_tables constant text[] := array(select jsonb_object_keys(p_refs));
    v_ids jsonb := '{}';
    v_seen text[] := '{}';
    v_table text;
    v_answer text;
    v_role text;
begin
    foreach v_table in array v_tables loop
        v_ids := jsonb_set(v_ids, array[v_table], to_jsonb(sync_internal.well_formed(v_table, p_refs -> v_table)));
    end loop;
    for i in 1 .. cardinality(p_claims) loop
        perform sync_internal.assume('none', null);
        if not sync_internal.session_counts(p_claims[i]::jsonb) then
            v_seen := v_seen || text 'null';
            continue;
        end if;
        v_role := sync_internal.assume_claims(p_claims[i]);
        v_answer := null;
        foreach v_table in array v_tables loop
            v_answer := concat_ws(
                ',', v_answer, concat(
                    to_json(v_table), ':',
                    to_json(sync_internal.seen_of(
                        v_table, array(select jsonb_array_elements_text(v_ids -> v_table)), v_role
                    ))
                )
            );
        end loop;
        v_seen := v_seen || concat('{', v_answer, '}');
    end loop;
    perform sync_internal.assume('none', null);
    return format('{"overtaken":%s,"seen":[%s]}', v_overtaken, array_to_string(v_seen, ','));
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_probe(text[], jsonb, text) is 'Which of some records several users may read now.';
grant execute on function sync.gateway_probe(text[], jsonb, text) to rowcast_gateway;

create or replace function sync_internal.seen_of(p_table text, p_ids text[], p_role text)
returns text[]
language plpgsql
stable
parallel unsafe
security invoker
as $$
begin
    if p_role = 'authenticated' then
        return sync_internal.seen_authenticated(p_table, p_ids);
    end if;
    return sync_internal.seen_anon(p_table, p_ids);
end
$$;

comment on function sync_internal.seen_of(text, text[], text) is 'Those of some ids whose rows the caller may read.';
grant execute on function sync_internal.seen_of(text, text[], text) to anon, authenticated;

-- Those of some records that were changed after a cursor. Definer: callers have no right on the feed.
create or replace function sync_internal.overtaken(p_refs jsonb, p_cursor text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_from record;
begin
    select * into v_from from sync_internal.read_cursor(p_cursor);
    if v_from.stale then
        return p_refs;
    end if;
    return (
        select coalesce(jsonb_object_agg(n.table_name, n.ids), '{}')
        from (
            select c.table_name,
                -- What names no record may have moved any.
                case when bool_or(c.record_id is null) then p_refs -> c.table_name else jsonb_agg(distinct c.record_id) end
                as ids
            from sync_internal.changes c
            where (c.xid >= v_from.xmax or c.xid = any (v_from.xips))
                and (c.record_id is null and p_refs ? c.table_name or p_refs -> c.table_name ? c.record_id)
            group by c.table_name
        ) n
    );
end
$$;

comment on function sync_internal.overtaken(jsonb, text) is 'Those of some records that were changed after a cursor.';
grant execute on function sync_internal.overtaken(jsonb, text) to rowcast_gateway;

-- The classes of rows that each of several users may read under each of his keys now. p_keys: [["key", ...], ...] in the
-- order of p_claims. Gives [{"key": [classes], ...}, ...]; 65 classes mean: too many. A key that is not well formed is
-- not in the answer; null for those whose session has ended.
create or replace function sync.gateway_views(p_claims text[], p_keys jsonb)
returns text
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_parsed jsonb;
    v_views text[] := '{}';
    v_role text;
begin
    select coalesce(jsonb_object_agg(k.value ->> 'key', k.value), '{}') into v_parsed
    from jsonb_array_elements(sync_internal.parse_keys(array(
        select distinct e.key from jsonb_array_elements(p_keys) l, jsonb_array_elements_text(l.value) e (key)
    )) -> 'keys') k;
    for i in 1 .. cardinality(p_claims) loop
        perform sync_internal.assume('none', null);
        if not sync_internal.session_counts(p_claims[i]::jsonb) then
            v_views := v_views || text 'null';
            continue;
        end if;
        v_role := sync_internal.assume_claims(p_claims[i]);
        v_views := v_views || sync_internal.views_of(
            array(
                select v_parsed -> e.key from jsonb_array_elements_text(p_keys -> (i - 1)) e (key)
                where v_parsed ? e.key
            ), v_role
        )::text;
    end loop;
    perform sync_internal.assume('none', null);
    return format('[%s]', array_to_string(v_views, ','));
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_views(text[], jsonb) is 'The classes of rows users may read under their keys.';
grant execute on function sync.gateway_views(text[], jsonb) to rowcast_gateway;

-- The classes the current role may read under keys that parse_keys has taken apart: {"key": [classes]}.
create or replace function sync_internal.views_of(p_keys jsonb[], p_role text)
returns jsonb
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_group record;
    v_answer jsonb := '{}';
    v_found jsonb;
begin
    for v_group in
        select k.value ->> 'table' as name, coalesce(k.value ->> 'column', '') as column_name,
            k.value ? 'id' as single,
            array_agg(coalesce(k.value ->> 'id', k.value ->> 'value', '')) as values,
            array_agg(k.value ->> 'key') as keys
        from unnest(p_keys) k (value)
        group by 1, 2, 3
    loop
        if v_group.single then
            v_group.column_name := ':';
            -- An id that is none is not there.
            v_group.values := array(
                select case when v.value = any (w.ids) then v.value end
                from sync_internal.well_formed(v_group.name, to_jsonb(v_group.values)) w (ids),
                    unnest(v_group.values) with ordinality v (value, n)
                order by v.n
            );
        end if;
        select coalesce(jsonb_object_agg(v_group.keys[c.n], c.classes), '{}') into v_found
        from sync_internal.classes_of(v_group.name, v_group.column_name, v_group.values, p_role) c;
        v_answer := v_answer || v_found;
    end loop;
    return v_answer;
end
$$;

comment on function sync_internal.views_of(jsonb[], text) is 'The classes the current role may read under keys.';
grant execute on function sync_internal.views_of(jsonb[], text) to anon, authenticated, service_role;

create or replace function sync_internal.classes_of(p_table text, p_column text, p_values text[], p_role text)
returns table (n bigint, classes text[])
language plpgsql
stable
parallel unsafe
security invoker
as $$
begin
    case p_role
        when 'authenticated' then
            return query select * from sync_internal.classes_authenticated(p_table, p_column, p_values);
        when 'service_role' then
            return query select * from sync_internal.classes_service_role(p_table, p_column, p_values);
        else return query select * from sync_internal.classes_anon(p_table, p_column, p_values);
    end case;
end
$$;

comment on function sync_internal.classes_of(text, text, text[], text)
is 'The classes of rows the caller may read under values of a column.';
grant execute on function sync_internal.classes_of(text, text, text[], text) to anon, authenticated, service_role;
