-- The two ways to write for whoever has an identity: sync.write reports outcomes, sync.apply raises on refusal.

-- Carries out transactions in order, each with its own outcome. p_transactions: a list of Tx, or one.
-- Gives {"results": [...], "recordMap": {...}}. Raises PT400 where an envelope cannot be read, before anything runs,
-- PT422 beyond max_transactions.
create or replace function sync.write(p_transactions jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
-- Text of this schema is read as it was written, whatever the session has set.
set standard_conforming_strings = on
as $$
declare
    v_transactions constant jsonb := case jsonb_typeof(p_transactions)
        when 'object' then jsonb_build_array(p_transactions) else p_transactions
    end;
begin
    perform sync_internal.check_envelopes(v_transactions);
    return (sync_internal.run(v_transactions, sync_internal.variant(), false)).body;
end
$$;

comment on function sync.write(jsonb) is 'Carries out transactions, each with its own outcome.';

-- Carries out one transaction and gives [{table, id, version}] of what it wrote. A refusal is raised as PTxyz with a
-- JSON detail and undoes everything in the caller's transaction, as SQL errors do. p_tx_id: for exactly-once.
create or replace function sync.apply(p_operations jsonb, p_tx_id uuid default null, p_expect jsonb default null)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
-- Text of this schema is read as it was written, whatever the session has set.
set standard_conforming_strings = on
as $$
declare
    v_result sync_internal.attempted;
    v_error jsonb;
begin
    if jsonb_typeof(p_operations) is distinct from 'array' then
        perform sync_internal.refuse(400, 'bad_request', 'Operations are a list');
    end if;
    p_tx_id := coalesce(p_tx_id, gen_random_uuid());
    v_result := sync_internal.attempt(
        p_tx_id, p_operations,
        case when p_expect is not null then jsonb_build_object(
            'txId', p_tx_id, 'operations', p_operations, 'expect', p_expect
        ) end,
        sync_internal.variant(), false
    );
    v_error := v_result.outcome -> 'error';
    if v_error is not null then
        perform sync_internal.refuse(
            (v_error ->> 'status')::integer, v_error ->> 'code', v_error ->> 'detail',
            v_error - '{status,detail}'::text[]
        );
    end if;
    return v_result.outcome -> 'versions';
end
$$;

comment on function sync.apply(jsonb, uuid, jsonb) is 'Carries out one transaction; raises where it is refused.';

-- PT400 unless each is an object with a txId and a list of operations.
create or replace function sync_internal.check_envelopes(p_transactions jsonb)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if jsonb_typeof(p_transactions) is distinct from 'array' or p_transactions = '[]' then
        perform sync_internal.refuse(400, 'bad_request', 'Send a list of transactions, or one');
    elsif jsonb_array_length(p_transactions) > sync_internal.setting('max_transactions') then
        perform sync_internal.refuse_limit(422, 'max_transactions');
    end if;
    for i in 0 .. jsonb_array_length(p_transactions) - 1 loop
        if jsonb_typeof(p_transactions -> i) <> 'object'
            or jsonb_typeof(p_transactions -> i -> 'txId') is distinct from 'string'
            or not sync_internal.is_any_uuid(p_transactions -> i ->> 'txId')
            or jsonb_typeof(p_transactions -> i -> 'operations') is distinct from 'array' then
            perform sync_internal.refuse(
                400, 'bad_request', 'A transaction is {txId: uuid, operations: [...]}',
                jsonb_build_object('transaction', i)
            );
        end if;
    end loop;
    return true;
end
$$;

comment on function sync_internal.check_envelopes(jsonb) is 'Whether transactions can be read at all.';

-- Runs the transactions of one author in order; after the first transient failure the rest is left untried, so that
-- the client's order holds. One that needs a record whose create was refused just now is 424 blocked.
-- p_single: the answer is that of the one transaction, with its own status.
create or replace function sync_internal.run(p_transactions jsonb, p_variant text, p_single boolean)
returns sync_internal.answer
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_tx jsonb;
    v_result sync_internal.attempted;
    v_retry jsonb;
    v_held uuid[];
    v_blocker text;
    v_refused jsonb;
    v_results text[];
    v_maps text[];
begin
    if p_single then
        v_tx := p_transactions -> 0;
        v_result := sync_internal.attempt((v_tx ->> 'txId')::uuid, v_tx -> 'operations', v_tx, p_variant, true);
        if v_result.outcome ? 'error' then
            return (
                (v_result.outcome #>> '{error,status}')::integer,
                sync_internal.problem_text(v_tx ->> 'txId', v_result), v_result.again
            );
        end if;
        return (
            200,
            concat(
                left(sync_internal.applied_text(v_tx ->> 'txId', v_result.outcome), -1), ',"recordMap":',
                coalesce(v_result.record_map, '{}'), '}'
            ),
            v_result.again
        );
    end if;
    v_held := '{}';
    v_refused := '{}';
    v_results := '{}';
    v_maps := '{}';
    if jsonb_array_length(p_transactions) > 1 then
        v_held := sync_internal.lock_receipts(array(
            select (t.tx ->> 'txId')::uuid from jsonb_array_elements(p_transactions) t (tx)
        ));
    end if;
    for i in 0 .. jsonb_array_length(p_transactions) - 1 loop
        v_tx := p_transactions -> i;
        v_blocker := null;
        if v_retry is null and (v_tx ->> 'txId')::uuid = any (v_held) then
            v_retry := sync_internal.explain_error('55P03', null, null, null, null, null, false);
        end if;
        if v_retry is not null then
            v_result := (v_retry, null::text, true);
        else
            if v_refused <> '{}' then
                v_blocker := sync_internal.blocked_by(v_tx, v_refused);
            end if;
            if v_blocker is not null then
                v_result := (
                    sync_internal.refusal(
                        424, 'blocked', 'It needs a record whose create was refused',
                        jsonb_build_object('blockedBy', v_blocker)
                    ), null::text, false
                );
            else
                v_result := sync_internal.attempt((v_tx ->> 'txId')::uuid, v_tx -> 'operations', v_tx, p_variant, true);
            end if;
            if v_result.again then
                v_retry := v_result.outcome;
            elsif v_result.outcome ->> 'status' <> 'refused' then
                -- Created after all, by a corrected transaction.
                v_refused := v_refused - array(select jsonb_object_keys(sync_internal.creates_of(v_tx)));
            elsif v_result.outcome #>> '{error,code}' <> 'exists' then
                v_refused := v_refused || sync_internal.creates_of(v_tx);
            end if;
        end if;
        if v_result.record_map is not null and not v_result.outcome ? 'error' then
            if v_maps <> '{}' then
                -- What it names and no longer shows is not there any more, whatever an earlier one showed.
                v_maps := v_maps || sync_internal.named_map(v_tx);
            end if;
            v_maps := v_maps || v_result.record_map;
        end if;
        v_results := v_results || sync_internal.result_text(v_tx ->> 'txId', v_result);
    end loop;
    return (
        200,
        concat(
            '{"results":[', array_to_string(v_results, ','), '],"recordMap":', sync_internal.merge_maps(v_maps), '}'
        ),
        v_retry is not null
    );
end
$$;

comment on function sync_internal.run(jsonb, text, boolean) is 'Runs the transactions of one author in order.';

-- The entry of one that is not refused. Stable, as concat is: else it could not be inlined.
create or replace function sync_internal.applied_text(p_tx_id text, p_outcome jsonb)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select concat('{"txId":"', p_tx_id, '",', substr(p_outcome::text, 2))
$$;

comment on function sync_internal.applied_text(text, jsonb) is 'The entry of results of one that is not refused.';

-- One entry of results, as JSON text.
create or replace function sync_internal.result_text(p_tx_id text, p_result sync_internal.attempted)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_result.outcome ? 'error' then concat(
            '{"txId":"', p_tx_id, '","status":"', p_result.outcome ->> 'status', '","versions":[],"error":',
            sync_internal.problem_text(p_tx_id, p_result), '}'
        )
        else sync_internal.applied_text(p_tx_id, p_result.outcome)
    end
$$;

comment on function sync_internal.result_text(text, sync_internal.attempted) is 'One entry of results.';

-- The error of a transaction as problem details, with the records it conflicts with.
create or replace function sync_internal.problem_text(p_tx_id text, p_result sync_internal.attempted)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select concat(
        left((sync_internal.problem(p_result.outcome -> 'error') || jsonb_build_object('txId', p_tx_id))::text, -1),
        case when p_result.outcome -> 'error' ? 'conflicts' then ',"recordMap":' || p_result.record_map end, '}'
    )
$$;

comment on function sync_internal.problem_text(text, sync_internal.attempted)
is 'The error of a transaction as problem details.';

-- An error as problem details (RFC 9457).
create or replace function sync_internal.problem(p_error jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select jsonb_build_object(
        'type', 'about:blank',
        'title', case (p_error ->> 'status')::integer
            when 400 then 'Bad request' when 401 then 'Sign in' when 403 then 'Forbidden' when 409 then 'Conflict'
            when 410 then 'Gone' when 413 then 'Too large' when 422 then 'Unprocessable' when 424 then 'Blocked'
            when 429 then 'Too many requests' when 503 then 'Try again' else 'Error'
        end
    ) || p_error
$$;

comment on function sync_internal.problem(jsonb) is 'An error as problem details.';

-- The records a transaction would have created: {"table id": txId}.
create or replace function sync_internal.creates_of(p_tx jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select coalesce(jsonb_object_agg(concat(o.op ->> 'table', ' ', o.op ->> 'id'), p_tx ->> 'txId'), '{}')
    from jsonb_array_elements(p_tx -> 'operations') o (op)
    where jsonb_typeof(o.op) = 'object' and jsonb_typeof(o.op -> 'id') = 'string'
        and (o.op -> 'type' = '"create"' or o.op -> 'type' = '"set"' and o.op -> 'key' in ('"id"', '["id"]'))
$$;

comment on function sync_internal.creates_of(jsonb)
is 'The records a transaction creates, each with its txId.';

-- The transaction whose refused create this one needs: it operates on the record without creating it, or carries its id
-- where one may stand. A text that happens to be equal is no id: in a key that references another table, or, where ids
-- are not unique by themselves, in one that is a plain value. The web client decides so, too (needs.ts).
create or replace function sync_internal.blocked_by(p_tx jsonb, p_refused jsonb)
returns text
language sql
stable
parallel safe
security invoker
as $$
    with operations as (
        select o.op, o.op ->> 'table' as name from jsonb_array_elements(p_tx -> 'operations') o (op)
    ),
    refused as (
        select r.value as tx_id, split_part(r.key, ' ', 1) as name, substr(r.key, strpos(r.key, ' ') + 1) as id
        from jsonb_each_text(p_refused - array(select jsonb_object_keys(sync_internal.creates_of(p_tx)))) r
    ),
    given as (
        select v.value, sync_internal.key_places(o.name) -> v.key as place
        from operations o
        cross join lateral (
            select e.key, e.value
            from jsonb_each(
                case when o.op -> 'type' = '"create"' and jsonb_typeof(o.op -> 'value') = 'object'
                    then o.op -> 'value' else '{}'
                end
            ) e
            union all
            select split_part(coalesce(o.op #>> '{key,0}', o.op ->> 'key'), '.', 1), o.op -> 'value'
            where o.op -> 'type' is distinct from '"create"'
            union all
            select null, o.op -> 'args'
        ) v
    )
    select r.tx_id
    from refused r
    where exists (select from operations o where o.name = r.name and o.op ->> 'id' = r.id)
        or exists (
            select from given g cross join lateral jsonb_path_query(g.value, '$.** ? (@.type() == "string")') x (value)
            where x.value #>> '{}' = r.id and case
                when g.place ? 'parent' then g.place ->> 'parent' = r.name
                else g.place is null or g.place ->> 'kind' in ('json', 'list')
                    or sync_internal.id_type(r.name) = 'uuid'
            end
        )
    limit 1
$$;

comment on function sync_internal.blocked_by(jsonb, jsonb) is 'The transaction whose refused create this one needs.';

-- The records a transaction names, each with null, as a recordMap.
create or replace function sync_internal.named_map(p_tx jsonb)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select coalesce(jsonb_object_agg(t.name, t.ids), '{}')::text
    from (
        select o.op ->> 'table' as name, jsonb_object_agg(o.op ->> 'id', null) as ids
        from jsonb_array_elements(p_tx -> 'operations') o (op)
        where o.op ? 'table'
        group by 1
    ) t
$$;

comment on function sync_internal.named_map(jsonb) is 'The records a transaction names.';

-- Several recordMaps as one; of one record the last stands, and null is none.
create or replace function sync_internal.merge_maps(p_maps text[])
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if cardinality(p_maps) <= 1 then
        return coalesce(p_maps[1], '{}');
    end if;
    return '{' || coalesce(
        (
            select string_agg(to_json(t.name) || ':{' || t.members || '}', ',')
            from (
                select r.name, string_agg(to_json(r.id) || ':' || r.record::text, ',') as members
                from (
                    select distinct on (t.key, e.key) t.key as name, e.key as id, e.value as record
                    from unnest(p_maps) with ordinality m (map, n)
                    cross join lateral json_each(m.map::json) t
                    cross join lateral json_each(t.value) e
                    order by t.key, e.key, m.n desc
                ) r
                where json_typeof(r.record) <> 'null'
                group by r.name
            ) t
        ), ''
    ) || '}';
end
$$;

comment on function sync_internal.merge_maps(text[]) is 'Several recordMaps as one.';

grant execute on function
sync.write(jsonb), sync.apply(jsonb, uuid, jsonb)
to anon, authenticated, service_role;

grant execute on function
sync_internal.check_envelopes(jsonb), sync_internal.run(jsonb, text, boolean),
sync_internal.applied_text(text, jsonb), sync_internal.result_text(text, sync_internal.attempted),
sync_internal.problem_text(text, sync_internal.attempted),
sync_internal.problem(jsonb), sync_internal.creates_of(jsonb),
sync_internal.blocked_by(jsonb, jsonb), sync_internal.named_map(jsonb), sync_internal.merge_maps(text[])
to anon, authenticated, service_role, rowcast_gateway;
