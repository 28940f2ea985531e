-- From a value of the wire to a value of a column, one function per kind. SQL null (no value) and JSON null both give
-- null. A value of another form raises PT400 wrong_type; one that no column can hold raises PT400 bad_value.

create or replace function sync_internal.refuse_type(p_expected text)
returns void
language plpgsql immutable parallel safe security invoker
as $$
begin
    perform sync_internal.refuse(
        400, 'wrong_type', format('Expected %s', p_expected), jsonb_build_object('expected', p_expected)
    );
end
$$;

-- Inlined, since nearly every operation sets a text.
create or replace function sync_internal.to_text(p_value jsonb)
returns text
language sql immutable parallel safe security invoker
as $$
    select case when jsonb_typeof(p_value) = 'string' then p_value #>> '{}' else sync_internal.no_text(p_value) end
$$;

create or replace function sync_internal.no_text(p_value jsonb)
returns text
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a string');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_boolean(p_value jsonb)
returns boolean
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'boolean' then
        return p_value::boolean;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('true or false');
    end if;
    return null;
end
$$;

-- A number a client can hold: finite as a double (magnitude at most 1.7976931348623157e308).
create or replace function sync_internal.to_number(p_value jsonb)
returns numeric
language plpgsql immutable parallel safe security invoker
as $$
declare
    v_number numeric;
begin
    if jsonb_typeof(p_value) = 'number' then
        v_number := p_value::numeric;
        if abs(v_number) > 1.7976931348623157e308 then
            perform sync_internal.refuse(400, 'bad_value', 'The number is too large');
        end if;
        return v_number;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a number');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_float(p_value jsonb)
returns double precision
language plpgsql immutable parallel safe security invoker
as $$
begin
    -- A literal below the smallest double is zero, as in every JSON reader; a cast would refuse it.
    if jsonb_typeof(p_value) = 'number' and abs(p_value::numeric) < 5e-324 then
        return 0;
    end if;
    return sync_internal.to_number(p_value)::double precision;
end
$$;

create or replace function sync_internal.to_integer(p_value jsonb)
returns integer
language plpgsql immutable parallel safe security invoker
as $$
declare
    v_number constant numeric := case when jsonb_typeof(p_value) = 'number' then p_value::numeric end;
begin
    if jsonb_typeof(p_value) = 'null' or p_value is null then
        return null;
    elsif v_number is null or abs(v_number) > 2147483648 or v_number <> trunc(v_number) then
        perform sync_internal.refuse_type('a whole number');
    end if;
    return v_number::integer;
end
$$;

-- Strings, so that a JavaScript reader keeps every digit; a number is taken too.
create or replace function sync_internal.to_bigint(p_value jsonb)
returns bigint
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'string' and (p_value #>> '{}') ~ '^-?[0-9]{1,19}$' then
        return (p_value #>> '{}')::bigint;
    elsif jsonb_typeof(p_value) = 'number'
        and abs(p_value::numeric) <= 9223372036854775808 and p_value::numeric = trunc(p_value::numeric) then
        return p_value::numeric::bigint;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a whole number as a string');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_numeric(p_value jsonb)
returns numeric
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'string' and (p_value #>> '{}') ~ '^-?[0-9]+(\.[0-9]+)?$'
        and length(p_value #>> '{}') <= 400 then
        return (p_value #>> '{}')::numeric;
    elsif jsonb_typeof(p_value) = 'number' then
        return sync_internal.to_number(p_value);
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a number as a string');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_uuid(p_value jsonb)
returns uuid
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'string' and sync_internal.is_any_uuid(p_value #>> '{}') then
        return (p_value #>> '{}')::uuid;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a uuid');
    end if;
    return null;
end
$$;

-- ISO 8601 with a zone; words such as "now" or "infinity" are no time on the wire.
create or replace function sync_internal.to_timestamptz(p_value jsonb)
returns timestamptz
language plpgsql stable parallel safe security invoker
as $$
declare
    v_time timestamptz;
begin
    if jsonb_typeof(p_value) = 'string'
        and (p_value #>> '{}')
        ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$' then
        v_time := (p_value #>> '{}')::timestamptz;
        -- The zone may carry it out of the four-digit years of ISO 8601.
        if v_time < '0001-01-01T00:00:00Z' or v_time >= '10000-01-01T00:00:00Z' then
            perform sync_internal.refuse(400, 'bad_value', 'The year has four digits');
        end if;
        return v_time;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a time in ISO 8601 with a zone');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_timestamp(p_value jsonb)
returns timestamp
language plpgsql stable parallel safe security invoker
as $$
declare
    v_time timestamp;
begin
    if jsonb_typeof(p_value) = 'string'
        and (p_value #>> '{}')
        ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?$' then
        v_time := (p_value #>> '{}')::timestamp;
        -- A second beyond the last minute may carry it into a year of five digits.
        if v_time >= '10000-01-01T00:00:00' then
            perform sync_internal.refuse(400, 'bad_value', 'The year has four digits');
        end if;
        return v_time;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a time in ISO 8601 without a zone');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_date(p_value jsonb)
returns date
language plpgsql stable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'string' and (p_value #>> '{}') ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
        return (p_value #>> '{}')::date;
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('a date as YYYY-MM-DD');
    end if;
    return null;
end
$$;

create or replace function sync_internal.to_bytea(p_value jsonb)
returns bytea
language plpgsql immutable parallel safe security invoker
as $$
begin
    if jsonb_typeof(p_value) = 'string'
        and (p_value #>> '{}') ~ '^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$' then
        return decode(p_value #>> '{}', 'base64');
    elsif jsonb_typeof(p_value) <> 'null' then
        perform sync_internal.refuse_type('base64');
    end if;
    return null;
end
$$;

-- The elements of a one-dimensional list as texts, each proven to be of the kind; null elements stay null.
create or replace function sync_internal.to_texts(p_value jsonb, p_element_kind text)
returns text[]
language plpgsql stable parallel safe security invoker
as $$
declare
    v_texts text[] := '{}';
    v_element jsonb;
begin
    if jsonb_typeof(p_value) = 'null' or p_value is null then
        return null;
    elsif jsonb_typeof(p_value) <> 'array' then
        perform sync_internal.refuse_type('a list');
    elsif jsonb_array_length(p_value) > sync_internal.setting('max_list_items') then
        perform sync_internal.refuse_limit(422, 'max_list_items');
    end if;
    for v_element in select e.value from jsonb_array_elements(p_value) e (value) loop
        v_texts := v_texts || case p_element_kind
            when 'text' then sync_internal.to_text(v_element)
            when 'enum' then sync_internal.to_text(v_element)
            when 'uuid' then sync_internal.to_uuid(v_element)::text
            when 'integer' then sync_internal.to_integer(v_element)::text
            when 'bigint' then sync_internal.to_bigint(v_element)::text
            when 'numeric' then sync_internal.to_numeric(v_element)::text
            -- The digits as they were sent: the text of a double depends on the session.
            when 'float' then case sync_internal.to_float(v_element) when 0 then '0' else v_element #>> '{}' end
            when 'boolean' then sync_internal.to_boolean(v_element)::text
            when 'date' then sync_internal.to_date(v_element)::text
        end;
    end loop;
    return v_texts;
end
$$;

-- A list operation with its value and anchor as the wire spells the elements of the column: a uuid in lower case, whole
-- and exact numbers as texts. Only then is what is equal seen to be equal. An anchor that is none of the kind is left
-- as it came: it is not in the list.
create or replace function sync_internal.spelled(p_op jsonb, p_kind text)
returns jsonb
language plpgsql stable parallel safe security invoker
as $$
declare
    v_op jsonb := p_op;
    v_path text[];
begin
    foreach v_path slice 1 in array array[['value', null], ['position', 'before'], ['position', 'after']] loop
        v_path := array_remove(v_path, null);
        if jsonb_typeof(v_op #> v_path) in ('string', 'number') then
            v_op := jsonb_set(
                v_op, v_path, to_jsonb((sync_internal.to_texts(jsonb_build_array(v_op #> v_path), p_kind))[1])
            );
        end if;
    end loop;
    return v_op;
exception
    when sqlstate 'PT400' or data_exception then
        return v_op;
end
$$;

-- A time on the wire: UTC, six digits, Z.
create or replace function sync_internal.wire_time(p_time timestamptz)
returns text
language sql stable parallel safe security invoker
as $$
    select case
        when isfinite(p_time) then to_char(p_time at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        else p_time::text
    end
$$;

-- The same of a time without a zone.
create or replace function sync_internal.wire_timestamp(p_time timestamp)
returns text
language sql stable parallel safe security invoker
as $$
    select case
        when isfinite(p_time) then to_char(p_time, 'YYYY-MM-DD"T"HH24:MI:SS.US')
        else p_time::text
    end
$$;

-- JSON of a value whose text depends on settings of the session.
create or replace function sync_internal.exact_json(p_value anyelement)
returns json
language plpgsql stable parallel safe security invoker
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
set lc_monetary = 'C'
as $$
begin
    return to_json(p_value);
end
$$;

-- The same for doubles and lists of them. Nearly every session writes all their digits: only the others pay.
create or replace function sync_internal.float_json(p_value anyelement)
returns json
language sql stable parallel safe security invoker
as $$
    select case
        when current_setting('extra_float_digits') = '1' then to_json(p_value)
        else sync_internal.exact_json(p_value)
    end
$$;

do $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'sync_internal'::regnamespace
            and p.proname in (
                'refuse_type', 'to_text', 'no_text', 'to_boolean', 'to_number', 'to_float', 'to_integer', 'to_bigint',
                'to_numeric',
                'to_uuid', 'to_timestamptz', 'to_timestamp', 'to_date', 'to_bytea', 'to_texts', 'wire_time', 'wire_timestamp',
                'exact_json', 'float_json', 'spelled'
            )
    loop
        execute format(
            'grant execute on function %s to anon, authenticated, service_role, rowcast_gateway', v_function
        );
    end loop;
end
$$;
