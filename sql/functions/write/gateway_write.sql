-- The gateway's door for writing: several users' requests in one commit, each transaction in a subtransaction of its
-- own with its author's role and claims. In one statement, one round trip.
--
-- p_claims: per request the JWT payload, null for nobody. p_bodies: per request the body as it came.
-- p_dry_run: per request whether everything is rolled back after it was tried; null for no.
-- p_schemas: per request the schema its client was made for; null where it does not say.
-- Gives per request the HTTP status and JSON text. again: something transient was in the way, or the request must not
-- share its commit with others; call again with that one alone, what it already did is answered as a duplicate.
create or replace function sync.gateway_write(
    p_claims text[], p_bodies text[], p_dry_run boolean[] default null, p_schemas bigint[] default null
)
returns table (ord integer, status integer, body text, again boolean)
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_count constant integer := cardinality(p_bodies);
    v_requests jsonb[] := '{}';
    v_request jsonb;
    v_single boolean[] := '{}';
    v_dry boolean[] := '{}';
    v_answers sync_internal.answer[] := '{}';
    v_answer sync_internal.answer;
    v_role text;
    v_roles text[] := '{}';
    -- An assignment costs a tenth of PERFORM, which runs a query.
    v_ok boolean;
    v_held uuid[];
begin
    if v_count > 1 then
        perform set_config('lock_timeout', sync_internal.setting('batch_lock_timeout_ms')::text, true);
    end if;

    for i in 1 .. v_count loop
        v_answer := null;
        begin
            v_roles[i] := sync_internal.claimed_role(p_claims[i]);
            -- Before its body is looked at: what it means may have changed, and a refusal would be stored.
            v_ok := p_schemas is null or sync_internal.check_schema(p_schemas[i]);
            v_request := p_bodies[i]::jsonb;
            v_single[i] := not v_request ? 'transactions';
            if jsonb_typeof(v_request -> 'dryRun') <> 'boolean' then
                perform sync_internal.refuse(400, 'bad_request', 'dryRun is true or false');
            end if;
            v_dry[i] := coalesce(p_dry_run[i], false) or coalesce(v_request -> 'dryRun' = 'true', false);
            v_request := case
                when not v_single[i] then v_request -> 'transactions'
                when jsonb_typeof(v_request) = 'object' then jsonb_build_array(v_request)
            end;
            v_ok := sync_internal.check_envelopes(v_request);
            v_ok := sync_internal.check_numbers(p_bodies[i], v_request, true);
            if v_count > 1 and sync_internal.must_run_alone(v_request) then
                v_answer := (503, null::text, true);
            end if;
        exception
            when others or assert_failure then
                v_answer := sync_internal.unreadable(sqlstate, sqlerrm);
                if sqlstate like 'PT%' then
                    declare
                        v_detail text;
                    begin
                        get stacked diagnostics v_detail = pg_exception_detail;
                        v_answer := sync_internal.refused_answer(sqlstate, sqlerrm, v_detail);
                    end;
                end if;
        end;
        v_requests[i] := v_request;
        v_answers[i] := v_answer;
    end loop;

    if v_count > 1 then
        v_held := sync_internal.lock_receipts(array(
            select (t.tx ->> 'txId')::uuid
            from generate_subscripts(v_requests, 1) r (i)
            cross join lateral jsonb_array_elements(
                case when v_answers[r.i] is null then v_requests[r.i] else '[]' end
            ) t (tx)
        ));
        for i in 1 .. case when v_held = '{}' then 0 else v_count end loop
            if v_answers[i] is null and exists (
                select from jsonb_array_elements(v_requests[i]) t (tx) where (t.tx ->> 'txId')::uuid = any (v_held)
            ) then
                v_answers[i] := (503, null, true)::sync_internal.answer;
            end if;
        end loop;
    end if;

    for i in 1 .. v_count loop
        if v_answers[i] is null then
            -- Settings outlive a released savepoint: identity is taken on anew before each.
            v_role := sync_internal.assume_claims(p_claims[i], v_roles[i]);
            if v_dry[i] then
                begin
                    v_answer := sync_internal.run(v_requests[i], v_role, v_single[i]);
                    raise exception using errcode = 'RC001', message = 'dry run';
                exception
                    when sqlstate 'RC001' then null;
                end;
                v_answers[i] := v_answer;
            else
                v_answers[i] := sync_internal.run(v_requests[i], v_role, v_single[i]);
            end if;
            v_ok := sync_internal.assume('none', null);
            if v_count > 1 and (v_answers[i]).again then
                -- The others have waited once; the rest of the batch does not wait again.
                v_role := set_config('lock_timeout', '1', true);
            end if;
        end if;
        ord := i;
        status := (v_answers[i]).status;
        body := (v_answers[i]).body;
        again := (v_answers[i]).again;
        return next;
    end loop;
end
$$;

comment on function sync.gateway_write(text[], text[], boolean[], bigint[]) is 'The gateway''s door for writing.';
grant execute on function sync.gateway_write(text[], text[], boolean[], bigint[]) to rowcast_gateway;

-- Does a request write where other users' transactions must not share the commit?
create or replace function sync_internal.must_run_alone(p_transactions jsonb)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_operations jsonb;
begin
    for i in 0 .. jsonb_array_length(p_transactions) - 1 loop
        v_operations := p_transactions -> i -> 'operations';
        for j in 0 .. jsonb_array_length(v_operations) - 1 loop
            if v_operations -> j -> 'type' = '"call"' or (
                case jsonb_typeof(v_operations -> j -> 'table')
                    when 'string' then sync_internal.runs_alone(v_operations -> j ->> 'table')
                end
            ) then
                return true;
            end if;
        end loop;
    end loop;
    return false;
end
$$;

comment on function sync_internal.must_run_alone(jsonb) is 'Whether a request must not share its commit.';

-- The answer to a body that cannot be read.
create or replace function sync_internal.unreadable(p_state text, p_message text)
returns sync_internal.answer
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_error constant jsonb := case
        when p_state = '22P05' then '{"status": 400, "code": "bad_value", "detail": "A text holds the character NUL"}'
        when p_state = '54001'
            then '{"status": 422, "code": "too_many", "detail": "The body is nested too deep", "limit": "max_depth"}'
        else '{"status": 400, "code": "bad_request", "detail": "The body is no JSON that can be stored"}'
    end;
begin
    return ((v_error ->> 'status')::integer, sync_internal.problem(v_error)::text, false);
end
$$;

comment on function sync_internal.unreadable(text, text) is 'The answer to a body that cannot be read.';

create or replace function sync_internal.refused_answer(p_state text, p_message text, p_detail text)
returns sync_internal.answer
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    return (
        substr(p_state, 3)::integer,
        sync_internal.problem(
            jsonb_build_object('status', substr(p_state, 3)::integer, 'detail', p_message)
            || sync_internal.refusal_detail(p_detail)
        )::text,
        false
    );
end
$$;

comment on function sync_internal.refused_answer(text, text, text) is 'The answer to a request refused as a whole.';

grant execute on function
sync_internal.must_run_alone(jsonb), sync_internal.unreadable(text, text),
sync_internal.refused_answer(text, text, text)
to rowcast_gateway;
