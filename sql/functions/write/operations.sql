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

-- PT503: a table was altered and its code not made anew.
create or replace function sync_internal.refuse_shape()
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    perform sync_internal.refuse(
        503, 'schema_changed', 'The table''s shape has changed since its code was made: select sync.refresh(table)'
    );
end
$$;

comment on function sync_internal.refuse_shape() is 'Raises PT503: sync.refresh is needed.';

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

comment on function sync_internal.refuse_operation(text, text[], text)
is 'Refuses an operation that does not suit its column.';

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
    select exists (
        select from jsonb_array_elements(p_ops) o (op)
        where sync_internal.first_segment(o.op) = any (p_names)
    )
$$;

comment on function sync_internal.names_any(jsonb, text[]) is 'Whether an operation names one of these keys.';

-- A uuid as the wire writes it, in lower case. By two patterns: one expression that counts every character costs four
-- times as much.
create or replace function sync_internal.is_uuid(p_text text)
returns boolean
language sql
immutable
parallel safe
security invoker
as $$
    select p_text like '________-____-____-____-____________'
        and p_text ~ '^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$'
$$;

comment on function sync_internal.is_uuid(text) is 'Whether a text is a uuid as the wire writes it.';

create or replace function sync_internal.is_any_uuid(p_text text)
returns boolean
language sql
immutable
parallel safe
security invoker
as $$
    select p_text like '________-____-____-____-____________'
        and p_text ~* '^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$'
$$;

comment on function sync_internal.is_any_uuid(text) is 'Whether a text is a uuid in whatever case.';

-- The key of an operation as far as it can be shown in an error: a short text, or a short list of texts.
create or replace function sync_internal.shown_key(p_op jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when jsonb_typeof(p_op -> 'key') = 'string' and pg_column_size(p_op -> 'key') <= 600
            or jsonb_typeof(p_op -> 'key') = 'array' and pg_column_size(p_op -> 'key') <= 600
            and not jsonb_path_exists(p_op -> 'key', 'strict $[*] ? (@.type() != "string")') then p_op -> 'key'
    end
$$;

comment on function sync_internal.shown_key(jsonb) is 'The key of an operation as far as it can be shown.';

-- Is the id well formed and written the one way the wire writes it? One record has one name.
create or replace function sync_internal.check_id(p_id jsonb, p_type text)
returns boolean
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
            when 'uuid' then sync_internal.is_uuid(v_id)
            when 'bigint' then v_id ~ '^(0|-?[1-9][0-9]{0,18})$'
                and v_id::numeric between -9223372036854775808 and 9223372036854775807
            else octet_length(v_id) between 1 and 200
        end,
        false
    ) then
        perform sync_internal.refuse(
            400, 'bad_request',
            case p_type
                when 'uuid' then 'The id is a uuid in lower case'
                when 'bigint' then 'The id is a whole number as a string'
                else 'The id is a text of 1 to 200 bytes'
            end
        );
    end if;
    return true;
end
$$;

comment on function sync_internal.check_id(jsonb, text) is 'Whether an id is well formed.';

-- The form of one operation, before its table is looked at. PT400.
create or replace function sync_internal.check_form(p_op jsonb)
returns boolean
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_rest jsonb;
begin
    if jsonb_typeof(p_op) is distinct from 'object' or jsonb_typeof(p_op -> 'type') is distinct from 'string' then
        perform sync_internal.refuse(400, 'bad_request', 'An operation is an object with a type');
    end if;
    case p_op ->> 'type'
        when 'set' then v_rest := p_op - '{type,table,id,key,value}'::text[];
        when 'set-now' then v_rest := p_op - '{type,table,id,key}'::text[];
        when 'listInsert' then v_rest := p_op - '{type,table,id,key,value,position}'::text[];
        when 'listRemove' then v_rest := p_op - '{type,table,id,key,value}'::text[];
        when 'increment' then v_rest := p_op - '{type,table,id,key,by}'::text[];
        when 'create' then v_rest := p_op - '{type,table,id,value}'::text[];
        when 'delete' then v_rest := p_op - '{type,table,id}'::text[];
        when 'restore' then v_rest := p_op - '{type,table,id}'::text[];
        when 'call' then v_rest := p_op - '{type,fn,args}'::text[];
        else perform sync_internal.refuse(400, 'unknown_operation', 'There is no such operation');
    end case;
    if v_rest <> '{}' then
        perform sync_internal.refuse(400, 'bad_request', 'The operation has fields it does not take');
    elsif p_op ->> 'type' = 'call' then
        if jsonb_typeof(p_op -> 'fn') is distinct from 'string'
            or jsonb_typeof(coalesce(p_op -> 'args', '{}')) <> 'object' then
            perform sync_internal.refuse(400, 'bad_request', 'A call names a function and its arguments as an object');
        end if;
    elsif jsonb_typeof(p_op -> 'table') is distinct from 'string'
        or jsonb_typeof(p_op -> 'id') is distinct from 'string' then
        perform sync_internal.refuse(400, 'bad_request', 'An operation names its table and id');
    elsif (case p_op ->> 'type'
        when 'set' then not p_op ? 'key'
        when 'set-now' then not p_op ? 'key'
        when 'listInsert' then not p_op ?& '{key,value}'
        when 'listRemove' then not p_op ?& '{key,value}'
        when 'increment' then not p_op ? 'key' or coalesce(jsonb_typeof(p_op -> 'by'), '') not in ('number', 'string')
        when 'create' then jsonb_typeof(p_op -> 'value') is distinct from 'object'
    end) then
        perform sync_internal.refuse(400, 'bad_request', 'The operation lacks a field, or one has the wrong form');
    end if;
    return true;
end
$$;

comment on function sync_internal.check_form(jsonb) is 'The form of one operation.';

grant execute on function
sync_internal.refuse_neutral(), sync_internal.refuse_shape(),
sync_internal.refuse_operation(text, text[], text), sync_internal.first_segment(jsonb),
sync_internal.names_any(jsonb, text[]), sync_internal.check_id(jsonb, text),
sync_internal.check_form(jsonb), sync_internal.is_uuid(text), sync_internal.is_any_uuid(text),
sync_internal.shown_key(jsonb)
to anon, authenticated, service_role, rowcast_gateway;
