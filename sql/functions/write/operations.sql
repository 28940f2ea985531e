-- Helpers of the generated code and of the functions that carry out transactions.

-- The one refusal for missing, invisible and not permitted.
create or replace function sync_internal.refuse_neutral()
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    perform sync_internal.refuse(403, 'forbidden', 'No such record, or you may not change it');
end
$$;

comment on function sync_internal.refuse_neutral() is 'The one refusal for missing, invisible and not permitted.';

create or replace function sync_internal.refuse_operation(p_type text, p_path text[], p_kind text)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    perform sync_internal.refuse(
        400, case when p_path is null then 'wrong_type' else 'bad_path' end,
        case
            when p_path is null then format('%s does not apply to a key of type %s', p_type, p_kind)
            else format('A key of type %s has nothing inside', p_kind)
        end,
        jsonb_build_object('expected', p_kind)
    );
end
$$;

comment on function sync_internal.refuse_operation(text, text[], text) is 'Refuses an operation that does not suit its column.';

-- The first segment of an operation's key; null where it has none.
create or replace function sync_internal.first_segment(p_op jsonb)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case jsonb_typeof(p_op -> 'key')
        when 'string' then split_part(p_op ->> 'key', '.', 1)
        when 'array' then p_op -> 'key' ->> 0
    end
$$;

comment on function sync_internal.first_segment(jsonb) is 'The first segment of an operation''s key.';

create or replace function sync_internal.names_any(p_ops jsonb, p_names text[])
returns boolean
language sql
immutable
parallel safe
security invoker
as $$
    select exists (select from jsonb_array_elements(p_ops) o (op) where sync_internal.first_segment(o.op) = any (p_names))
$$;

comment on function sync_internal.names_any(jsonb, text[]) is 'Whether an operation names one of these keys.';

-- The text of the value that the last set of a key gave it.
create or replace function sync_internal.last_value_of(p_ops jsonb, p_name text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select o.op ->> 'value'
    from jsonb_array_elements(p_ops) with ordinality o (op, n)
    where o.op ->> 'type' = 'set' and sync_internal.first_segment(o.op) = p_name
    order by o.n desc
    limit 1
$$;

comment on function sync_internal.last_value_of(jsonb, text) is 'The text of the value the last set gave a key.';

-- Is the id well formed and written the one way the wire writes it? One record has one name.
create or replace function sync_internal.check_id(p_id jsonb, p_type text)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_id constant text := case when jsonb_typeof(p_id) = 'string' then p_id #>> '{}' end;
begin
    if not coalesce(
        case p_type
            when 'uuid' then v_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            when 'bigint' then v_id ~ '^(0|-?[1-9][0-9]{0,18})$' and v_id::numeric between -9223372036854775808 and 9223372036854775807
            else octet_length(v_id) between 1 and 200
        end,
        false
    ) then
        perform sync_internal.refuse(
            400, 'bad_request',
            case p_type
                when 'uuid' then 'The id is a uuid in lower case' when 'bigint' then 'The id is a whole number as a string'
                else 'The id is a text of 1 to 200 bytes'
            end
        );
    end if;
end
$$;

comment on function sync_internal.check_id(jsonb, text) is 'Whether an id is well formed.';

-- The form of one operation, before its table is looked at. PT400.
create or replace function sync_internal.check_form(p_op jsonb)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_fields text[];
begin
    if jsonb_typeof(p_op) is distinct from 'object' or jsonb_typeof(p_op -> 'type') is distinct from 'string' then
        perform sync_internal.refuse(400, 'bad_request', 'An operation is an object with a type');
    end if;
    v_fields := case p_op ->> 'type'
        when 'set' then '{type,table,id,key,value}'
        when 'set-now' then '{type,table,id,key}'
        when 'listInsert' then '{type,table,id,key,value,position}'
        when 'listRemove' then '{type,table,id,key,value}'
        when 'increment' then '{type,table,id,key,by}'
        when 'create' then '{type,table,id,value}'
        when 'delete' then '{type,table,id}'
        when 'restore' then '{type,table,id}'
        when 'call' then '{type,fn,args}'
    end::text[];
    if v_fields is null then
        perform sync_internal.refuse(400, 'unknown_operation', 'There is no such operation');
    elsif p_op - v_fields <> '{}' then
        perform sync_internal.refuse(400, 'bad_request', 'The operation has fields it does not take');
    elsif p_op ->> 'type' = 'call' then
        if jsonb_typeof(p_op -> 'fn') is distinct from 'string'
            or jsonb_typeof(coalesce(p_op -> 'args', '{}')) <> 'object' then
            perform sync_internal.refuse(400, 'bad_request', 'A call names a function and its arguments as an object');
        end if;
    elsif jsonb_typeof(p_op -> 'table') is distinct from 'string' or jsonb_typeof(p_op -> 'id') is distinct from 'string' then
        perform sync_internal.refuse(400, 'bad_request', 'An operation names its table and id');
    elsif 'key' = any (v_fields) and not p_op ? 'key'
        or p_op ->> 'type' in ('listInsert', 'listRemove') and not p_op ? 'value'
        or p_op ->> 'type' = 'increment' and coalesce(jsonb_typeof(p_op -> 'by'), '') not in ('number', 'string')
        or p_op ->> 'type' = 'create' and jsonb_typeof(p_op -> 'value') is distinct from 'object' then
        perform sync_internal.refuse(400, 'bad_request', 'The operation lacks a field, or one has the wrong form');
    end if;
end
$$;

comment on function sync_internal.check_form(jsonb) is 'The form of one operation.';

grant execute on function
sync_internal.refuse_neutral(), sync_internal.refuse_operation(text, text[], text), sync_internal.first_segment(jsonb),
sync_internal.names_any(jsonb, text[]), sync_internal.last_value_of(jsonb, text), sync_internal.check_id(jsonb, text),
sync_internal.check_form(jsonb)
to anon, authenticated, service_role, rowcast_gateway;
