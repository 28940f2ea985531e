-- Receipts: the stored outcome of each transaction. Definer, all of them: callers have no right on the table, and the
-- author is whoever asks, never an argument.

-- The time a version 7 id carries; null for other ids.
create or replace function sync_internal.id_time(p_id uuid)
returns timestamptz
language sql
immutable
parallel safe
security invoker
as $$
    select case when substr(p_id::text, 15, 1) = '7' then
        to_timestamp(('x' || translate(left(p_id::text, 13), '-', ''))::bit(48)::bigint::float8 / 1000)
    end
$$;

comment on function sync_internal.id_time(uuid) is 'The time a version 7 id carries.';

-- What a transaction asks for, as a number that is the same for the same operations and expectations. A hash of the
-- value, not of its text: nine kilobytes of JSON can print as megabytes.
create or replace function sync_internal.digest(p_operations jsonb, p_expect jsonb)
returns bigint
language sql
stable
parallel safe
security invoker
as $$
    select jsonb_hash_extended(jsonb_build_array(p_operations, coalesce(nullif(p_expect, '[]'), 'null')), 0)
$$;

comment on function sync_internal.digest(jsonb, jsonb) is 'What a transaction asks for, as a number.';

-- What is known of a transaction before it is tried. Null: nothing, go on; then seq_from is the mark at which its
-- changes begin. Otherwise an outcome: the stored one, 422 tx_mismatch, 410 too_old or 400 for an id from the future.
-- Serializes on the id until the end of the enclosing transaction, so that a concurrent repeat waits and then sees.
create or replace function sync_internal.claim_receipt(p_tx_id uuid, p_digest bigint)
returns sync_internal.claim
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_claim sync_internal.claim;
    v_receipt record;
    v_time constant timestamptz := sync_internal.id_time(p_tx_id);
    v_none text;
begin
    v_none := pg_advisory_xact_lock(sync_internal.receipt_key(p_tx_id));
    select r.author, r.digest, r.outcome into v_receipt from sync_internal.receipts r where r.tx_id = p_tx_id;
    if found then
        if v_receipt.author <> sync_internal.author()
            or v_receipt.digest <> p_digest and v_receipt.outcome ->> 'status' = 'applied' then
            v_claim.outcome := sync_internal.refusal(422, 'tx_mismatch', 'This txId was used for another transaction');
            return v_claim;
        elsif v_receipt.digest = p_digest then
            -- Its commit may have been cancelled or cut off while it waited for the standby. Whoever repeats the answer
            -- waits anew, and only a commit that writes something does.
            if current_setting('synchronous_standby_names') <> '' then
                v_none := pg_logical_emit_message(true, 'rowcast', '');
            end if;
            v_claim.outcome := case v_receipt.outcome ->> 'status'
                when 'applied' then v_receipt.outcome || '{"status": "duplicate"}'
                else v_receipt.outcome
            end;
            return v_claim;
        end if;
        -- Refused before and sent again with other operations: a new attempt.
    elsif v_time > now() + interval '24 hours' then
        v_claim.outcome := sync_internal.refusal(400, 'bad_request', 'The txId lies more than 24 hours ahead');
        return v_claim;
    elsif v_time < now() - interval '1 day' then
        if v_time < (select s.receipt_floor from sync_internal.state s) then
            v_claim.outcome := sync_internal.refusal(410, 'too_old', 'The txId is older than receipts are kept');
            return v_claim;
        end if;
    end if;
    v_claim.seq_from := nextval('sync_internal.change_seq');
    return v_claim;
end
$$;

comment on function sync_internal.claim_receipt(uuid, bigint) is 'What is known of a transaction before it is tried.';

-- Whether a transaction's outcome is stored. Definer: callers have no right on the table.
create or replace function sync_internal.receipt_known(p_tx_id uuid)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from sync_internal.receipts r where r.tx_id = p_tx_id)
$$;

comment on function sync_internal.receipt_known(uuid) is 'Whether a transaction''s outcome is stored.';

create or replace function sync_internal.receipt_key(p_tx_id uuid)
returns bigint
language sql
immutable
parallel safe
security invoker
as $$
    select hashtextextended(p_tx_id::text, 7215603)
$$;

comment on function sync_internal.receipt_key(uuid) is 'The advisory lock of a transaction''s id.';

-- Claims of several transactions are taken in one order, so that two batches with the same ids cannot
-- deadlock. Gives the ids that are held elsewhere; after the first of them nobody is waited for.
create or replace function sync_internal.lock_receipts(p_tx_ids uuid[])
returns uuid[]
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid;
    v_held uuid[] := '{}';
    v_none text;
begin
    for v_id in select distinct t.id from unnest(p_tx_ids) t (id) order by 1 loop
        begin
            if v_held = '{}' then
                v_none := pg_advisory_xact_lock(sync_internal.receipt_key(v_id));
            elsif not pg_try_advisory_xact_lock(sync_internal.receipt_key(v_id)) then
                v_held := v_held || v_id;
            end if;
        exception
            when lock_not_available or deadlock_detected then
                v_held := v_held || v_id;
        end;
    end loop;
    return v_held;
end
$$;

comment on function sync_internal.lock_receipts(uuid[]) is 'Claims several transactions in one order.';

create or replace function sync_internal.store_receipt(
    p_tx_id uuid, p_digest bigint, p_outcome jsonb, p_seq_from bigint
)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sync_internal.receipts (tx_id, author, digest, outcome, id_time, seq_from, seq_to)
    values (
        p_tx_id, sync_internal.author(), p_digest, p_outcome, sync_internal.id_time(p_tx_id), p_seq_from,
        nextval('sync_internal.change_seq')
    )
    on conflict (tx_id) do update set
        digest = excluded.digest, outcome = excluded.outcome, at = excluded.at, xid = excluded.xid,
        seq_from = excluded.seq_from, seq_to = excluded.seq_to
    where receipts.author = excluded.author and receipts.outcome ->> 'status' = 'refused';
    if not found then
        -- A repeatable read snapshot did not see the receipt of a concurrent repeat.
        raise exception using errcode = '40001', message = 'The transaction was stored meanwhile';
    end if;
    return true;
end
$$;

comment on function sync_internal.store_receipt(uuid, bigint, jsonb, bigint) is 'Stores the outcome of a transaction.';

-- The same for an id that is most likely new; false where it is not, or its time is one that must be looked at. Only an
-- id older than a day can lie below the floor.
create or replace function sync_internal.store_new_receipt(
    p_tx_id uuid, p_digest bigint, p_outcome jsonb, p_seq_from bigint
)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_time constant timestamptz := sync_internal.id_time(p_tx_id);
begin
    if v_time not between now() - interval '1 day' and now() + interval '24 hours' then
        return false;
    end if;
    insert into sync_internal.receipts (tx_id, author, digest, outcome, id_time, seq_from, seq_to)
    values (
        p_tx_id, sync_internal.author(), p_digest, p_outcome, v_time, p_seq_from, nextval('sync_internal.change_seq')
    )
    on conflict (tx_id) do nothing;
    return found;
end
$$;

comment on function sync_internal.store_new_receipt(uuid, bigint, jsonb, bigint)
is 'Stores the outcome of a transaction with a new id.';

create or replace function sync_internal.refusal(
    p_status integer, p_code text, p_message text, p_detail jsonb default '{}'
)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select jsonb_build_object(
        'status', 'refused',
        'error', jsonb_build_object('status', p_status, 'code', p_code, 'detail', p_message) || p_detail
    )
$$;

comment on function sync_internal.refusal(integer, text, text, jsonb) is 'The outcome of a refused transaction.';

grant execute on function
sync_internal.digest(jsonb, jsonb), sync_internal.receipt_known(uuid),
sync_internal.claim_receipt(uuid, bigint), sync_internal.lock_receipts(uuid[]),
sync_internal.store_receipt(uuid, bigint, jsonb, bigint),
sync_internal.store_new_receipt(uuid, bigint, jsonb, bigint), sync_internal.refusal(integer, text, text, jsonb)
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
