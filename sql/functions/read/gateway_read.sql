-- The gateway's doors for reading: claims in, then the same functions as everybody's, in one statement. A body that is
-- no JSON is PT400, one nested too deep PT422, a client made for too old a schema (p_schema, where it says) PT426.

create or replace function sync_internal.parse_body(p_body text)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_request jsonb;
begin
    begin
        v_request := p_body::jsonb;
    exception
        when statement_too_complex then
            perform sync_internal.refuse(422, 'too_many', 'The body is nested too deep', '{"limit": "max_depth"}');
        when others then
            perform sync_internal.refuse(400, 'bad_request', 'The body is no JSON that can be stored');
    end;
    perform sync_internal.check_numbers(p_body, v_request, false);
    return v_request;
end
$$;

comment on function sync_internal.parse_body(text) is 'The JSON of a request''s body.';

create or replace function sync.gateway_get_records(p_claims text, p_body text, p_schema bigint default null)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_new constant boolean := sync_internal.check_schema(p_schema);
    v_request constant jsonb := sync_internal.parse_body(p_body);
begin
    perform sync_internal.assume_claims(p_claims);
    return sync.get_records(v_request);
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce
        or insufficient_privilege then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_get_records(text, text, bigint) is 'The gateway''s door to sync.get_records.';

create or replace function sync.gateway_query(p_claims text, p_body text, p_schema bigint default null)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_new constant boolean := sync_internal.check_schema(p_schema);
    v_request constant jsonb := sync_internal.parse_body(p_body);
begin
    perform sync_internal.assume_claims(p_claims);
    return sync.query(v_request);
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce
        or insufficient_privilege then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_query(text, text, bigint) is 'The gateway''s door to sync.query.';

-- For large results, inside a transaction of the gateway's: opens the cursor rowcast_page, each row of which is the
-- text of one record. Gives the first line: {"table", "keys", "cursor", "limit"}. The cursor's
-- rows are of the statement that made the header's cursor, or later ones.
create or replace function sync.gateway_query_open(p_claims text, p_body text, p_schema bigint default null)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_new constant boolean := sync_internal.check_schema(p_schema);
    v_request constant jsonb := sync_internal.parse_body(p_body);
begin
    -- A slow reader is not a slow statement: FETCH is bounded, the page as a whole is not.
    perform set_config('statement_timeout', '60s', true);
    perform sync_internal.assume_claims(p_claims);
    return sync_internal.open_page(v_request);
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce
        or insufficient_privilege then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_query_open(text, text, bigint) is 'The gateway''s door to large results.';

grant execute on function
sync.gateway_get_records(text, text, bigint), sync.gateway_query(text, text, bigint),
sync.gateway_query_open(text, text, bigint),
sync_internal.parse_body(text)
to rowcast_gateway;

-- What a gateway needs to know before it serves.
create or replace function sync.gateway_status()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select json_build_object(
        'schema', s.app_schema, 'oldestSchema', s.oldest_schema,
        'cursorKey', encode(s.cursor_key, 'hex'), 'epoch', sync_internal.compute_epoch(), 'storedEpoch', s.epoch,
        'serverTime', sync_internal.wire_time(clock_timestamp()), 'ready', not pg_is_in_recovery(),
        'version', s.schema_version,
        'migration', (select max(m.name) from sync_internal.migrations m where m.name like 'migrations/%')
    )
    from sync_internal.state s
$$;

comment on function sync.gateway_status() is 'What a gateway needs to know before it serves.';
grant execute on function sync.gateway_status() to rowcast_gateway;
