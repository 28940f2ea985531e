-- Carries out one transaction as the current role and identity, in a subtransaction of its own: rows, receipt and feed
-- are there together or not at all. Never raises for what the transaction itself brings about; only a cancelled
-- statement ends the whole call.
--
-- p_tx: the transaction as it was sent, null where it is nothing but its id and operations.
-- p_variant: whose generated code. p_want: records are wanted back, not only versions. Locks: the transaction's id,
-- then existing rows in the order of (table, id). Stored: applied, and refusals decided here; never what may pass when
-- tried again.
--
-- Nearly every transaction changes records that are there, is well formed, permitted and new: it is simply tried.
-- Whatever hinders that undoes the try, and the transaction is looked at with care. The generated code refuses what the
-- careful way would refuse; it need not know what to say.
create or replace function sync_internal.attempt(
    p_tx_id uuid, p_operations jsonb, p_tx jsonb, p_variant text, p_want boolean
)
returns sync_internal.attempted
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_last constant integer := jsonb_array_length(p_operations) - 1;
    v_op constant jsonb := p_operations -> 0;
    v_table constant text := v_op ->> 'table';
    v_id constant text := v_op ->> 'id';
    -- What the operations of a record have in common.
    v_at constant jsonb := jsonb_build_object('table', v_table, 'id', v_id);
    v_seq_from bigint;
    v_began timestamptz;
    v_written sync_internal.written;
    v_read sync_internal.written;
    v_several sync_internal.attempted;
    v_versions jsonb;
    v_map text;
    v_outcome jsonb;
begin
    -- A create never gets through this way.
    if v_op is null or p_tx ?| '{expect,authorId}' or v_op ->> 'type' in ('create', 'call')
        or v_last >= sync_internal.setting('max_operations')
        or pg_column_size(p_operations) > sync_internal.setting('max_transaction_bytes') - 1024 then
        return sync_internal.attempt_carefully(p_tx_id, p_operations, p_tx, p_variant, p_want);
    end if;
    begin
        v_seq_from := nextval('sync_internal.change_seq');
        if sync_internal.defers() then
            set constraints all deferred;
        end if;
        if p_operations -> -1 @> v_at then
            v_began := clock_timestamp();
            v_written := case p_variant
                when 'authenticated'
                    then sync_internal.update_authenticated(v_table, v_id, v_at, p_operations, 0, v_last, p_want)
                when 'service_role'
                    then sync_internal.update_service_role(v_table, v_id, v_at, p_operations, 0, v_last, p_want)
                else sync_internal.update_anon(v_table, v_id, v_at, p_operations, 0, v_last, p_want)
            end;
            if v_written.version is null then
                raise sqlstate 'RC002';
            end if;
            -- One that waited for the row was let through by what its policies saw before: a membership may have
            -- ended meanwhile. A second statement sees what is true now.
            if clock_timestamp() - v_began > interval '1 ms' then
                if sync_internal.lock_one(v_table, v_id, p_variant) is null then
                    raise sqlstate 'RC002';
                end if;
            end if;
            if sync_internal.defers() then
                set constraints all immediate;
            end if;
            -- After triggers the row may stand differently.
            if sync_internal.rereads(v_table) then
                v_read := sync_internal.read_one(v_table, v_id, p_variant);
                v_written.version := coalesce(v_read.version, v_written.version);
                v_written.record := v_read.record;
            end if;
            -- 0 stands for a version the caller may not read.
            v_versions := case when v_written.version > 0 then jsonb_build_array(
                jsonb_build_object('table', v_table, 'id', v_id, 'version', v_written.version)
            ) else '[]' end;
            if p_want then
                v_map := sync_internal.record_map(array[v_table], array[v_id], array[v_written.record]);
            end if;
        else
            v_several := sync_internal.write_several(p_operations, p_variant, p_want);
            v_versions := v_several.outcome;
            v_map := v_several.record_map;
        end if;
        v_outcome := jsonb_build_object('status', 'applied', 'versions', v_versions);
        if sync_internal.store_new_receipt(
            p_tx_id, sync_internal.digest(p_operations, null), v_outcome, v_seq_from
        ) then
            return (v_outcome, v_map, false);
        end if;
        raise sqlstate 'RC002';
    exception
        when serialization_failure or deadlock_detected or lock_not_available then
            -- What was stored before is answered at once, whoever holds the row now.
            if not sync_internal.receipt_known(p_tx_id) then
                return (sync_internal.explain_error(sqlstate, null, null, null, null, null, false), null::text, true);
            end if;
        when others or assert_failure then null;
    end;
    return sync_internal.attempt_carefully(p_tx_id, p_operations, p_tx, p_variant, p_want);
end
$$;

comment on function sync_internal.attempt(uuid, jsonb, jsonb, text, boolean) is 'Carries out one transaction.';
grant execute on function sync_internal.attempt(uuid, jsonb, jsonb, text, boolean) to anon, authenticated, service_role;

-- Locks a record that the current role may update; its version, null where it may not.
create or replace function sync_internal.lock_one(p_table text, p_id text, p_variant text)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    return case p_variant
        when 'authenticated' then sync_internal.lock_authenticated(p_table, p_id)
        when 'service_role' then sync_internal.lock_service_role(p_table, p_id)
        else sync_internal.lock_anon(p_table, p_id)
    end;
end
$$;

comment on function sync_internal.lock_one(text, text, text) is 'Locks a record that the current role may update.';
grant execute on function sync_internal.lock_one(text, text, text) to anon, authenticated, service_role;

-- Carries out operations on several records that are there: gives the versions as outcome, and the records. Raises RC002
-- for whatever is to be looked at with care. Records are locked in the order of (table, id).
create or replace function sync_internal.write_several(p_operations jsonb, p_variant text, p_want boolean)
returns sync_internal.attempted
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_ops jsonb := p_operations;
    v_last constant integer := jsonb_array_length(p_operations) - 1;
    v_op jsonb := p_operations -> 0;
    v_table text := v_op ->> 'table';
    v_id text := v_op ->> 'id';
    v_at jsonb := jsonb_build_object('table', v_table, 'id', v_id);
    v_together boolean := not sync_internal.rereads(v_table);
    v_reread boolean := not v_together;
    v_began timestamptz;
    v_tables text[] := array[v_table];
    v_ids text[] := array[v_id];
    v_starts integer[] := '{0}';
    v_written sync_internal.written;
    v_all sync_internal.written[];
    v_number bigint;
    v_records text[];
    v_versions jsonb := '[]';
begin
    for i in 1 .. v_last loop
        v_op := v_ops -> i;
        continue when v_op @> v_at;
        if v_op ->> 'table' <> v_table or v_op ->> 'id' = any (v_ids) then
            v_together := false;
            exit;
        end if;
        v_id := v_op ->> 'id';
        v_at := jsonb_build_object('table', v_table, 'id', v_id);
        v_tables := v_tables || v_table;
        v_ids := v_ids || v_id;
        v_starts := v_starts || i;
    end loop;
    -- By one UPDATE for all, since most of what a statement costs is its beginning; unless triggers might change a row
    -- that it has yet to write.
    if v_together then
        v_starts := v_starts || v_last + 1;
        v_all := case p_variant
            when 'authenticated' then sync_internal.several_authenticated(v_table, v_ids, v_starts, v_ops, p_want)
            when 'service_role' then sync_internal.several_service_role(v_table, v_ids, v_starts, v_ops, p_want)
            else sync_internal.several_anon(v_table, v_ids, v_starts, v_ops, p_want)
        end;
    end if;
    if v_all is null then
        v_ops := sync_internal.gathered(p_operations);
        v_tables := '{}';
        v_ids := '{}';
        v_at := null;
        for i in 0 .. v_last loop
            v_op := v_ops -> i;
            continue when v_op @> v_at;
            v_table := v_op ->> 'table';
            v_id := v_op ->> 'id';
            v_at := jsonb_build_object('table', v_table, 'id', v_id);
            v_tables := v_tables || v_table;
            v_ids := v_ids || v_id;
            v_starts[cardinality(v_ids)] := i;
            v_reread := v_reread or sync_internal.rereads(v_table);
        end loop;
        v_starts[cardinality(v_ids) + 1] := v_last + 1;
        for i in 1 .. cardinality(v_ids) loop
            v_table := v_tables[i];
            v_id := v_ids[i];
            v_at := jsonb_build_object('table', v_table, 'id', v_id);
            v_began := clock_timestamp();
            v_written := case p_variant
                when 'authenticated' then sync_internal.update_authenticated(
                    v_table, v_id, v_at, v_ops, v_starts[i], v_starts[i + 1] - 1, p_want and not v_reread
                )
                when 'service_role' then sync_internal.update_service_role(
                    v_table, v_id, v_at, v_ops, v_starts[i], v_starts[i + 1] - 1, p_want and not v_reread
                )
                else sync_internal.update_anon(
                    v_table, v_id, v_at, v_ops, v_starts[i], v_starts[i + 1] - 1, p_want and not v_reread
                )
            end;
            exit when v_written.version is null;
            -- As in attempt: it waited, and the policies may say something else by now.
            if clock_timestamp() - v_began > interval '1 ms' then
                if sync_internal.lock_one(v_table, v_id, p_variant) is null then
                    raise sqlstate 'RC002';
                end if;
            end if;
            v_all[i] := v_written;
        end loop;
    end if;
    if sync_internal.defers() then
        set constraints all immediate;
    end if;

    for i in 1 .. cardinality(v_ids) loop
        v_written := v_all[i];
        if v_written.version is null then
            raise sqlstate 'RC002';
        end if;
        -- After triggers the rows may stand differently.
        if v_reread then
            v_number := v_written.version;
            v_written := sync_internal.read_one(v_tables[i], v_ids[i], p_variant);
            v_written.version := coalesce(v_written.version, v_number);
        end if;
        -- 0 stands for a version the caller may not read.
        if v_written.version > 0 then
            v_versions := v_versions || jsonb_build_object(
                'table', v_tables[i], 'id', v_ids[i], 'version', v_written.version
            );
        end if;
        if p_want then
            v_records := v_records || v_written.record;
        end if;
    end loop;
    return (
        v_versions, case when p_want then sync_internal.record_map(v_tables, v_ids, v_records) end, false
    );
end
$$;

comment on function sync_internal.write_several(jsonb, text, boolean)
is 'Carries out operations on several records that are there.';
grant execute on function sync_internal.write_several(jsonb, text, boolean) to anon, authenticated, service_role;

-- Operations such that those of one record stand together and the records in the one lock order.
create or replace function sync_internal.gathered(p_operations jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_op jsonb;
    v_at jsonb;
    v_ref text;
    v_before text;
begin
    for i in 0 .. jsonb_array_length(p_operations) - 1 loop
        v_op := p_operations -> i;
        continue when v_op @> v_at;
        v_at := jsonb_build_object('table', v_op -> 'table', 'id', v_op -> 'id');
        v_ref := (v_op ->> 'table') || ' ' || (v_op ->> 'id');
        if v_ref collate "C" <= v_before collate "C" then
            return (
                select jsonb_agg(o.op order by o.op ->> 'table' collate "C", o.op ->> 'id' collate "C", o.n)
                from jsonb_array_elements(p_operations) with ordinality o (op, n)
            );
        end if;
        v_before := v_ref;
    end loop;
    return p_operations;
end
$$;

comment on function sync_internal.gathered(jsonb) is 'Operations gathered by record, in the one lock order.';
grant execute on function sync_internal.gathered(jsonb) to anon, authenticated, service_role;

-- The same for every transaction: says what is wrong with it.
create or replace function sync_internal.attempt_carefully(
    p_tx_id uuid, p_operations jsonb, p_tx jsonb, p_variant text, p_want boolean
)
returns sync_internal.attempted
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_tx constant jsonb := coalesce(p_tx, jsonb_build_object('txId', p_tx_id, 'operations', p_operations));
    v_digest constant bigint := sync_internal.digest(p_operations, v_tx -> 'expect');
    v_outcome jsonb;
    v_claim sync_internal.claim;
    -- An assignment costs a tenth of PERFORM, which runs a query.
    v_ok boolean;
    v_steps sync_internal.step[];
    v_step sync_internal.step;
    v_traits sync_internal.traits;
    v_written sync_internal.written;
    v_op jsonb;
    v_number integer;
    v_locked bigint;
    v_at jsonb;
    v_last integer;
    v_table text;
    v_id text;
    v_simple boolean := true;
    v_reread boolean := false;
    v_forbidden text;
    v_forbidden_op jsonb;
    v_forbidden_number integer;
    v_tables text[] := '{}';
    v_ids text[] := '{}';
    v_versions bigint[] := '{}';
    v_records text[] := '{}';
    v_values jsonb := '[]';
    v_state text;
    v_message text;
    v_detail text;
    v_constraint text;
    v_relation text;
    v_schema text;
begin
    begin
        v_claim := sync_internal.claim_receipt(p_tx_id, v_digest);
    exception
        when serialization_failure or deadlock_detected or lock_not_available then
            return (sync_internal.explain_error(sqlstate, null, null, null, null, null, false), null::text, true);
    end;
    if v_claim.outcome is not null then
        return sync_internal.attempted_of(v_claim.outcome, v_tx, p_variant, p_want);
    end if;

    begin
        if pg_column_size(v_tx) > sync_internal.setting('max_transaction_bytes') then
            perform sync_internal.refuse_limit(413, 'max_transaction_bytes');
        elsif jsonb_array_length(p_operations) > sync_internal.setting('max_operations') then
            perform sync_internal.refuse_limit(422, 'max_operations');
        elsif p_operations = '[]' then
            perform sync_internal.refuse(400, 'bad_request', 'A transaction has at least one operation');
        end if;

        -- First what depends on the sent text alone: form, names, types.
        for i in 0 .. jsonb_array_length(p_operations) - 1 loop
            v_op := p_operations -> i;
            v_number := i;
            v_ok := sync_internal.check_form(v_op);
            if v_op -> 'type' in ('"call"', '"create"') then
                v_simple := false;
                continue when v_op ->> 'type' = 'call';
            end if;
            if i = 0 or v_op ->> 'id' <> v_id or v_op ->> 'table' <> v_table then
                v_traits := sync_internal.traits_of(v_op ->> 'table');
                v_ok := sync_internal.check_id(v_op -> 'id', v_traits.id_type);
                v_simple := v_simple and i = 0;
                v_reread := v_reread or v_traits.reread;
                v_table := v_op ->> 'table';
                v_id := v_op ->> 'id';
            end if;
            if v_op -> 'key' in ('"id"', '["id"]') or v_traits.hard_delete and v_op ->> 'type' = 'delete' then
                v_simple := false;
            end if;
        end loop;
        if v_simple then
            v_steps := array[(v_table, v_id, p_operations, null, false, false, null)::sync_internal.step];
        else
            v_steps := sync_internal.plan_groups(p_operations);
            v_reread := true;
        end if;
        foreach v_step in array v_steps loop
            continue when v_step.call is not null;
            v_table := v_step.name;
            v_id := v_step.id;
            for i in 0 .. jsonb_array_length(v_step.ops) - 1 loop
                v_op := v_step.ops -> i;
                v_number := coalesce(v_step.op_numbers[i + 1], i);
                v_forbidden := case p_variant
                    when 'authenticated' then sync_internal.check_authenticated(v_table, v_op, v_step.creating)
                    when 'service_role' then sync_internal.check_service_role(v_table, v_op, v_step.creating)
                    else sync_internal.check_anon(v_table, v_op, v_step.creating)
                end;
                if v_forbidden is not null and v_forbidden_op is null then
                    v_forbidden_op := v_op;
                    v_forbidden_number := v_number;
                end if;
            end loop;
            if v_step.creating then
                perform sync_internal.check_required(v_step.ops, sync_internal.required_keys(v_table));
            end if;
        end loop;
        v_op := null;
        v_number := null;
        if v_tx ? 'expect' then
            perform sync_internal.check_expect_form(v_tx -> 'expect', v_steps);
        end if;

        -- Then what the caller may do.
        if coalesce(nullif(v_tx -> 'authorId', 'null') <> to_jsonb(sync_internal.author()), false) then
            v_table := null;
            v_id := null;
            perform sync_internal.refuse(403, 'forbidden', 'The authorId is not the caller''s');
        elsif v_forbidden_op is not null then
            v_op := v_forbidden_op;
            v_number := v_forbidden_number;
            v_table := v_op ->> 'table';
            v_id := v_op ->> 'id';
            perform sync_internal.refuse(403, 'forbidden_key', 'This key cannot be written');
        end if;

        if sync_internal.defers() then
            set constraints all deferred;
        end if;
        if v_tx ? 'expect' then
            perform sync_internal.check_expect(v_tx -> 'expect', v_steps, p_variant);
        end if;
        foreach v_step in array v_steps loop
            v_table := v_step.name;
            v_id := v_step.id;
            if v_step.call is not null then
                v_number := v_step.op_numbers[1];
                v_values := v_values || jsonb_build_array(case p_variant
                    when 'authenticated'
                        then sync_internal.call_authenticated(
                            v_step.call ->> 'fn', coalesce(v_step.call -> 'args', '{}')
                        )
                    when 'service_role'
                        then sync_internal.call_service_role(
                            v_step.call ->> 'fn', coalesce(v_step.call -> 'args', '{}')
                        )
                    else sync_internal.call_anon(v_step.call ->> 'fn', coalesce(v_step.call -> 'args', '{}'))
                end);
                v_number := null;
                continue;
            elsif v_step.creating then
                if (
                    case p_variant
                        when 'authenticated' then sync_internal.insert_authenticated(v_table, v_id, v_step.ops)
                        when 'service_role' then sync_internal.insert_service_role(v_table, v_id, v_step.ops)
                        else sync_internal.insert_anon(v_table, v_id, v_step.ops)
                    end
                ) is null then
                    perform sync_internal.refuse_neutral();
                end if;
                v_written := null;
            elsif v_step.removing then
                v_written := null;
                -- As below. Who may not update waits in the delete itself.
                v_locked := sync_internal.lock_one(v_table, v_id, p_variant);
                v_written.version := case p_variant
                    when 'authenticated' then sync_internal.delete_authenticated(v_table, v_id)
                    when 'service_role' then sync_internal.delete_service_role(v_table, v_id)
                    else sync_internal.delete_anon(v_table, v_id)
                end;
                if v_written.version is null then
                    perform sync_internal.refuse_neutral();
                elsif v_tx ? 'expect' then
                    perform sync_internal.check_removed(v_tx -> 'expect', v_table, v_id, v_written.version);
                end if;
            else
                -- Locked by a statement of its own, as check_expect does for all: the policies are asked by the next, which
                -- has not waited for anybody.
                if not v_tx ? 'expect' and sync_internal.lock_one(v_table, v_id, p_variant) is null then
                    perform sync_internal.refuse_neutral();
                end if;
                v_at := jsonb_build_object('table', v_table, 'id', v_id);
                v_last := jsonb_array_length(v_step.ops) - 1;
                v_written := case p_variant
                    when 'authenticated' then sync_internal.update_authenticated(
                        v_table, v_id, v_at, v_step.ops, 0, v_last, p_want and not v_reread
                    )
                    when 'service_role' then sync_internal.update_service_role(
                        v_table, v_id, v_at, v_step.ops, 0, v_last, p_want and not v_reread
                    )
                    else sync_internal.update_anon(v_table, v_id, v_at, v_step.ops, 0, v_last, p_want and not v_reread)
                end;
                if v_written.version is null then
                    perform sync_internal.refuse_neutral();
                end if;
            end if;
            v_tables := v_tables || v_table;
            v_ids := v_ids || v_id;
            v_versions := v_versions || v_written.version;
            v_records := v_records || v_written.record;
        end loop;
        v_table := null;
        v_id := null;
        if sync_internal.defers() then
            set constraints all immediate;
        end if;

        -- After triggers and calls the rows may stand differently.
        if v_reread then
            for i in 1 .. cardinality(v_ids) loop
                v_written := sync_internal.read_one(v_tables[i], v_ids[i], p_variant);
                v_versions[i] := coalesce(v_written.version, v_versions[i]);
                v_records[i] := v_written.record;
            end loop;
        end if;
        v_outcome := jsonb_build_object(
            'status', 'applied', 'versions', sync_internal.version_list(v_tables, v_ids, v_versions)
        );
        if v_values <> '[]' then
            v_outcome := v_outcome || jsonb_build_object('values', v_values);
        end if;
        v_ok := sync_internal.store_receipt(p_tx_id, v_digest, v_outcome, v_claim.seq_from);
        return (v_outcome, case when p_want then sync_internal.record_map(v_tables, v_ids, v_records) end, false);
    exception
        when others or assert_failure then
            get stacked diagnostics
                v_state = returned_sqlstate, v_message = message_text, v_detail = pg_exception_detail,
                v_constraint = constraint_name, v_relation = table_name, v_schema = schema_name;
    end;

    if v_number is null and v_step.ops is not null and sync_internal.refusal_detail(v_detail) ? 'key' then
        -- Decided on the stored row: the first operation on that key is the one.
        select coalesce(v_step.op_numbers[o.n], o.n - 1) into v_number
        from jsonb_array_elements(v_step.ops) with ordinality o (op, n)
        where o.op -> 'key' = sync_internal.refusal_detail(v_detail) -> 'key'
        order by o.n
        limit 1;
    end if;
    v_outcome := sync_internal.explain_error(
        v_state, v_message, v_detail, v_constraint, format('%I.%I', v_schema, v_relation),
        jsonb_build_object(
            'table', left(v_table, 100), 'id', left(v_id, 200),
            'op', v_number, 'key', sync_internal.shown_key(v_op)
        ),
        v_state = '23505' and v_step.ops is not null and case p_variant
            when 'authenticated' then sync_internal.clash_authenticated(
                v_table, v_id, v_constraint, v_step.ops, v_step.creating
            )
            when 'service_role' then sync_internal.clash_service_role(
                v_table, v_id, v_constraint, v_step.ops, v_step.creating
            )
            else sync_internal.clash_anon(v_table, v_id, v_constraint, v_step.ops, v_step.creating)
        end
    );
    if v_outcome ->> 'status' = 'refused' and (v_outcome #>> '{error,status}')::integer in (400, 403, 409, 422) then
        begin
            v_ok := sync_internal.store_receipt(p_tx_id, v_digest, v_outcome, v_claim.seq_from);
        exception
            -- The same id is being written elsewhere, by the plain way, which claims nothing beforehand.
            when serialization_failure or deadlock_detected or lock_not_available then
                return (sync_internal.explain_error(sqlstate, null, null, null, null, null, false), null::text, true);
        end;
    end if;
    return sync_internal.attempted_of(v_outcome, v_tx, p_variant, p_want);
end
$$;

comment on function sync_internal.attempt_carefully(uuid, jsonb, jsonb, text, boolean)
is 'Carries out one transaction, saying what is wrong with it.';
grant execute on function sync_internal.attempt_carefully(uuid, jsonb, jsonb, text, boolean)
to anon, authenticated, service_role;

-- An outcome with the records that belong to it as they stand now: those a repeated transaction names, or those it
-- conflicts with.
create or replace function sync_internal.attempted_of(p_outcome jsonb, p_tx jsonb, p_variant text, p_want boolean)
returns sync_internal.attempted
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_tables text[];
    v_ids text[];
    v_records text[] := '{}';
begin
    if p_want and p_outcome ->> 'status' = 'duplicate' then
        select array_agg(o.name), array_agg(o.id) into v_tables, v_ids
        from (
            select distinct o.op ->> 'table', o.op ->> 'id'
            from jsonb_array_elements(p_tx -> 'operations') o (op)
            where o.op ? 'table'
        ) o (name, id);
    elsif jsonb_typeof(p_outcome #> '{error,conflicts}') = 'array' then
        select array_agg(c.value ->> 'table'), array_agg(c.value ->> 'id') into v_tables, v_ids
        from jsonb_array_elements(p_outcome #> '{error,conflicts}') c;
    end if;
    for i in 1 .. coalesce(cardinality(v_ids), 0) loop
        v_records := v_records || (sync_internal.read_one(v_tables[i], v_ids[i], p_variant)).record;
    end loop;
    return (p_outcome, sync_internal.record_map(v_tables, v_ids, v_records), p_outcome ->> 'status' = 'retry');
end
$$;

comment on function sync_internal.attempted_of(jsonb, jsonb, text, boolean)
is 'An outcome with the records that belong to it.';

create or replace function sync_internal.read_one(p_table text, p_id text, p_variant text)
returns sync_internal.written
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    return case p_variant
        when 'authenticated' then sync_internal.read_authenticated(p_table, p_id)
        when 'service_role' then sync_internal.read_service_role(p_table, p_id)
        else sync_internal.read_anon(p_table, p_id)
    end;
exception
    -- No right on the table at all, or it has changed since, or the id is none, in a refusal of the application's own:
    -- nothing to see.
    when insufficient_privilege or sqlstate 'PT503' or data_exception then
        return null;
end
$$;

comment on function sync_internal.read_one(text, text, text) is 'One record, as far as the caller may read it.';

-- The versions of a result; 0 stands for one the caller may not read, and is left out.
create or replace function sync_internal.version_list(p_tables text[], p_ids text[], p_versions bigint[])
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if cardinality(p_ids) = 1 and p_versions[1] > 0 then
        return jsonb_build_array(jsonb_build_object('table', p_tables[1], 'id', p_ids[1], 'version', p_versions[1]));
    end if;
    return coalesce(
        (
            select jsonb_agg(jsonb_build_object('table', v.name, 'id', v.id, 'version', v.version) order by v.n)
            from (
                -- A record written in two segments counts once, as it stands at the end.
                select distinct on (u.name, u.id) u.name, u.id, u.version, u.n
                from unnest(p_tables, p_ids, p_versions) with ordinality u (name, id, version, n)
                where u.version > 0
                order by u.name, u.id, u.n desc
            ) v
        ), '[]'
    );
end
$$;

comment on function sync_internal.version_list(text[], text[], bigint[]) is 'The versions of a result.';

-- A recordMap as JSON text.
create or replace function sync_internal.record_map(p_tables text[], p_ids text[], p_records text[])
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if cardinality(p_ids) = 1 and p_records[1] is not null then
        return '{"' || p_tables[1] || '":{' || to_json(p_ids[1]) || ':' || p_records[1] || '}}';
    end if;
    return '{' || coalesce(
        (
            select string_agg('"' || t.name || '":{' || t.members || '}', ',' order by t.name)
            from (
                select r.name, string_agg(to_json(r.id) || ':' || r.record, ',') as members
                from (
                    select distinct u.name, u.id, u.record
                    from unnest(p_tables, p_ids, p_records) u (name, id, record)
                    where u.record is not null
                ) r
                group by r.name
            ) t
        ), ''
    ) || '}';
end
$$;

comment on function sync_internal.record_map(text[], text[], text[]) is 'A recordMap as JSON text.';

create or replace function sync_internal.check_required(p_ops jsonb, p_required text[])
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_key text;
begin
    foreach v_key in array coalesce(p_required, '{}') loop
        if not sync_internal.names_any(p_ops, array[v_key]) then
            perform sync_internal.refuse(
                400, 'required', format('%s is required', v_key), jsonb_build_object('key', v_key)
            );
        end if;
    end loop;
end
$$;

comment on function sync_internal.check_required(jsonb, text[]) is 'Whether a create names the keys it must.';

-- PT400 unless the expectations are [{table, id, version}] on records the transaction touches.
create or replace function sync_internal.check_expect_form(p_expect jsonb, p_steps sync_internal.step[])
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if jsonb_typeof(p_expect) <> 'array' or exists (
        select from jsonb_array_elements(p_expect) e (value)
        where jsonb_typeof(e.value) <> 'object' or e.value - '{table,id,version}'::text[] <> '{}'
            or jsonb_typeof(e.value -> 'version') is distinct from 'number'
            or not (e.value -> 'version')::numeric between 0 and 999999999999999
            or (e.value -> 'version')::numeric <> trunc((e.value -> 'version')::numeric)
            or jsonb_typeof(e.value -> 'table') is distinct from 'string'
            or jsonb_typeof(e.value -> 'id') is distinct from 'string'
            or not exists (
                select from unnest(p_steps) s where s.name = e.value ->> 'table' and s.id = e.value ->> 'id'
            )
    ) then
        perform sync_internal.refuse(
            400, 'bad_request', 'expect is a list of {table, id, version} of records the transaction touches'
        );
    end if;
end
$$;

comment on function sync_internal.check_expect_form(jsonb, sync_internal.step[])
is 'Whether expectations are well formed.';

-- Locks the expected records in the one lock order and compares. PT409 conflict with the current versions, or PT403
-- where the caller may not change the record at all.
create or replace function sync_internal.check_expect(p_expect jsonb, p_steps sync_internal.step[], p_variant text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_expected record;
    v_found bigint;
    v_conflicts jsonb := '[]';
begin
    -- The records to be updated are locked along the way, so that the one order holds for all.
    for v_expected in
        select w.name, w.id, max(w.version) as version, min(w.version) as least
        from (
            select e.value ->> 'table', e.value ->> 'id', (e.value -> 'version')::bigint
            from jsonb_array_elements(p_expect) e (value)
            union all
            select s.name, s.id, null from unnest(p_steps) s where s.call is null and not s.creating and not s.removing
        ) w (name, id, version)
        group by w.name, w.id
        order by w.name collate "C", w.id collate "C"
    loop
        if v_expected.version = 0 then
            v_found := coalesce((sync_internal.read_one(v_expected.name, v_expected.id, p_variant)).version, 0);
        else
            v_found := sync_internal.lock_one(v_expected.name, v_expected.id, p_variant);
            if v_found is null and exists (
                select from unnest(p_steps) s where s.removing and s.name = v_expected.name and s.id = v_expected.id
            ) then
                -- Who may delete need not be allowed to update, which locking is: the delete compares again.
                v_found := (sync_internal.read_one(v_expected.name, v_expected.id, p_variant)).version;
            end if;
            if v_found is null and v_expected.version is not null then
                perform sync_internal.refuse(
                    403, 'forbidden', 'No such record, or you may not change it',
                    jsonb_build_object('table', v_expected.name, 'id', v_expected.id)
                );
            end if;
        end if;
        if v_found <> v_expected.version or v_found <> v_expected.least then
            v_conflicts := v_conflicts
                || jsonb_build_object('table', v_expected.name, 'id', v_expected.id, 'version', v_found);
        end if;
    end loop;
    if v_conflicts <> '[]' then
        perform sync_internal.refuse(
            409, 'conflict', 'The record has changed meanwhile', jsonb_build_object('conflicts', v_conflicts)
        );
    end if;
end
$$;

comment on function sync_internal.check_expect(jsonb, sync_internal.step[], text)
is 'Locks the expected records and compares their versions.';

-- PT409 where a record was removed at another version than expected.
create or replace function sync_internal.check_removed(p_expect jsonb, p_table text, p_id text, p_version bigint)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if exists (
        select from jsonb_array_elements(p_expect) e (value)
        where e.value ->> 'table' = p_table and e.value ->> 'id' = p_id and (e.value -> 'version')::bigint <> p_version
    ) then
        perform sync_internal.refuse(
            409, 'conflict', 'The record has changed meanwhile',
            jsonb_build_object('conflicts', jsonb_build_array(
                jsonb_build_object('table', p_table, 'id', p_id, 'version', p_version)
            ))
        );
    end if;
end
$$;

comment on function sync_internal.check_removed(jsonb, text, text, bigint)
is 'Whether a record was removed at the expected version.';

grant execute on function
sync_internal.attempted_of(jsonb, jsonb, text, boolean), sync_internal.read_one(text, text, text),
sync_internal.version_list(text[], text[], bigint[]), sync_internal.record_map(text[], text[], text[]),
sync_internal.check_required(jsonb, text[]), sync_internal.check_expect_form(jsonb, sync_internal.step[]),
sync_internal.check_expect(jsonb, sync_internal.step[], text),
sync_internal.check_removed(jsonb, text, text, bigint)
to anon, authenticated, service_role;
