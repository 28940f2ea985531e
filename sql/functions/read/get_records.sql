-- Records by pointer, as far as the current role and identity may read them. p_request:
-- {"pointers": [{table, id, version?}]}, 1 to max_pointers. Gives {"recordMap", "gone": [{table, id}],
-- "unchanged": [{table, id}], "cursor"}: unchanged are those whose version equals the one sent, gone those that are
-- not there for this caller. Records and cursor come from one statement. Raises PT400, PT422.
create or replace function sync.get_records(p_request jsonb)
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
    v_pointers constant jsonb := p_request -> 'pointers';
    v_answer json;
begin
    if jsonb_typeof(v_pointers) is distinct from 'array' or v_pointers = '[]' then
        perform sync_internal.refuse(400, 'bad_request', 'Send {pointers: [{table, id, version?}]}');
    elsif jsonb_array_length(v_pointers) > sync_internal.setting('max_pointers') then
        perform sync_internal.refuse_limit(422, 'max_pointers');
    elsif exists (
        select from jsonb_array_elements(v_pointers) p (value)
        where jsonb_typeof(p.value) <> 'object' or jsonb_typeof(p.value -> 'table') is distinct from 'string'
            or jsonb_typeof(p.value -> 'id') is distinct from 'string'
            or coalesce(jsonb_typeof(p.value -> 'version'), 'number') <> 'number'
    ) then
        perform sync_internal.refuse(400, 'bad_request', 'A pointer is {table, id, version?}');
    elsif exists (
        select from jsonb_array_elements(v_pointers) p (value) where sync_internal.id_type(p.value ->> 'table') is null
    ) then
        perform sync_internal.refuse(400, 'unknown_table', 'There is no such table');
    end if;

    with
    pointers as (
        select p.value ->> 'table' as name, p.value ->> 'id' as id, max((p.value -> 'version')::numeric) as version
        from jsonb_array_elements(v_pointers) p (value)
        group by 1, 2
    ),
    wanted as (
        select p.name, sync_internal.well_formed(p.name, jsonb_agg(p.id)) as ids from pointers p group by p.name
    ),
    found as materialized (
        select w.name, r.id, r.version, r.record
        from wanted w cross join lateral sync_internal.rows_of(w.name, w.ids, v_variant, true) r
    )
    -- The cursor first: gateways seal it there without reading on.
    select json_build_object(
        'cursor', sync_internal.cursor_now(),
        'recordMap', (
            select coalesce(json_object_agg(m.name, m.records), '{}')
            from (
                select f.name, json_object_agg(f.id, f.record::json) as records
                from found f join pointers p using (name, id)
                where f.version is distinct from p.version
                group by f.name
            ) m
        ),
        'gone', (
            select coalesce(json_agg(json_build_object('table', p.name, 'id', p.id)), '[]')
            from pointers p where not exists (select from found f where f.name = p.name and f.id = p.id)
        ),
        'unchanged', (
            select coalesce(json_agg(json_build_object('table', p.name, 'id', p.id)), '[]')
            from pointers p join found f using (name, id) where f.version = p.version
        )
    )
    into v_answer;
    return v_answer;
end
$$;

comment on function sync.get_records(jsonb) is 'Records by pointer, as far as the caller may read them.';
grant execute on function sync.get_records(jsonb) to anon, authenticated, service_role;
