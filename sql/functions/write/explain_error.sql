-- From an error of the database to a refusal. Only our own messages, a CHECK constraint's name and comment, and what
-- the caller himself sent may leave: no DETAIL, no value, no constraint that tells of other rows.
--
-- p_place: {"table", "id", "key", "op"} as far as known. Gives {"status": "refused", "error"} or, for what may pass if
-- tried again, {"status": "retry", "error"}. Unknown errors are raised on: their outcome is not ours to decide.
create or replace function sync_internal.explain_error(
    p_state text, p_message text, p_detail text, p_constraint text, p_relation text,
    p_place jsonb, p_readable_clash boolean
)
returns jsonb
language plpgsql
volatile
parallel safe
security invoker
as $$
declare
    v_place constant jsonb := jsonb_strip_nulls(coalesce(p_place, '{}'));
    v_where constant jsonb := v_place - 'key' - 'op';
    v_status integer;
    v_detail jsonb;
    v_tables jsonb;
    v_log_id constant text := left(gen_random_uuid()::text, 13);
begin
    if p_state like 'PT___' then
        v_detail := sync_internal.refusal_detail(p_detail);
        v_status := case when p_state ~ '^PT[45][0-9][0-9]$' then substr(p_state, 3)::integer else 400 end;
        return sync_internal.refusal(
            v_status, coalesce(v_detail ->> 'code', 'refused'), p_message,
            -- The neutral refusal names the record as the caller did, and nothing else.
            case when v_detail ->> 'code' = 'forbidden'
                then v_where || jsonb_strip_nulls(
                    jsonb_build_object('table', v_detail -> 'table', 'id', v_detail -> 'id')
                )
                else v_place || (v_detail - 'code' - 'status' - 'detail') end
        ) || jsonb_build_object('status', case when v_status >= 500 or v_status = 429 then 'retry' else 'refused' end);
    elsif p_state in ('40001', '40P01', '55P03') then
        return jsonb_build_object('status', 'retry', 'error', jsonb_build_object(
            'status', 503, 'code', 'retry', 'detail', 'Another transaction was in the way; try again'
        ));
    elsif p_state = '23514' then
        return sync_internal.refusal(
            400, 'check_failed',
            coalesce(sync_internal.constraint_comment(p_relation, p_constraint), 'A value is not allowed here'),
            v_where || jsonb_build_object('constraint', p_constraint)
        );
    elsif p_state in ('23505', '23P01') then
        return case when p_readable_clash
            then sync_internal.refusal(409, 'exists', 'There is such a record already', v_where)
            else sync_internal.refusal(403, 'forbidden', 'No such record, or you may not change it', v_where)
        end;
    elsif p_state = '23502' then
        return sync_internal.refusal(400, 'required', 'A required key is missing', v_place);
    -- 23001: the 23503 of ON DELETE RESTRICT since PostgreSQL 18.
    elsif p_state in ('23503', '23001', '42501') then
        return sync_internal.refusal(403, 'forbidden', 'No such record, or you may not change it', v_where);
    elsif p_state in ('42703', '42P01', '42883', '42804', '42846', '42P13', '0A000', '42704') then
        v_tables := sync.describe() -> 'tables';
        -- Where every table still fits, it is a trigger of the application's that does not: it would fail again.
        if not v_tables ? coalesce(v_place ->> 'table', '')
            or jsonb_path_exists(v_tables, '$.*.stale ? (@ == true)') then
            raise log 'rowcast: schema changed: % %', p_state, p_message;
            return jsonb_build_object('status', 'retry', 'error', jsonb_build_object(
                'status', 503, 'code', 'schema_changed',
                'detail', 'The table''s shape has changed since its code was made: select sync.refresh(table)'
            ) || v_where);
        end if;
    elsif p_state in ('22P02', '22007', '22008', '22003', '22001', '22000', '22023', '2200G') then
        return sync_internal.refusal(400, 'wrong_type', 'The value does not fit the type of its column', v_place);
    elsif p_state like '22%' or p_state in ('54001', '54000', '23000') then
        return sync_internal.refusal(400, 'bad_value', 'The value is not allowed', v_place);
    elsif p_state = 'P0001' then
        -- A trigger or function of the application refuses in its own words; with errcode PTxyz it also says
        -- its status.
        return sync_internal.refusal(400, 'refused', p_message, v_where);
    end if;
    -- Unknown: only a number leaves, under which the server's log says more.
    raise log 'rowcast %: % %', v_log_id, p_state, p_message;
    -- What the server lacks just now may pass, and what is raised where the catalogue changes under a statement;
    -- anything else would fail again, and must not hold up what comes after it: the client keeps it, to be tried again
    -- by its user.
    return jsonb_build_object(
        'status', case
            when p_state ~ '^(53|57|58)' or p_state = 'XX000' and p_message ~ '^tuple concurrently' then 'retry'
            else 'refused'
        end,
        'error', jsonb_build_object(
            'status', 500, 'code', 'internal', 'detail', 'Something went wrong', 'logId', v_log_id
        )
    );
end
$$;

comment on function sync_internal.explain_error(text, text, text, text, text, jsonb, boolean)
is 'From an error of the database to a refusal.';

-- The DETAIL of a refusal as an object; an application's own may be anything.
create or replace function sync_internal.refusal_detail(p_detail text)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_detail jsonb;
begin
    v_detail := nullif(p_detail, '')::jsonb;
    return case when jsonb_typeof(v_detail) = 'object' then v_detail else '{}' end;
exception
    when data_exception then
        return '{}';
end
$$;

comment on function sync_internal.refusal_detail(text) is 'The DETAIL of a refusal as an object.';
grant execute on function sync_internal.refusal_detail(text)
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

-- The comment of a CHECK constraint, as the catalogue tells it everybody. p_relation: schema and name, quoted.
create or replace function sync_internal.constraint_comment(p_relation text, p_constraint text)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select obj_description(c.oid, 'pg_constraint')
    from pg_catalog.pg_constraint c
    join pg_catalog.pg_class r on r.oid = c.conrelid
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
    where c.conname = p_constraint and c.contype = 'c' and format('%I.%I', n.nspname, r.relname) = p_relation
$$;

comment on function sync_internal.constraint_comment(text, text) is 'The comment of a CHECK constraint.';

grant execute on function
sync_internal.explain_error(text, text, text, text, text, jsonb, boolean), sync_internal.constraint_comment(text, text)
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
