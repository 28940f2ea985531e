-- The wire name of an SQL name: board_id is boardId.
create or replace function sync_internal.wire_name(p_name text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select string_agg(
        case when w.n = 1 then w.word else upper(left(w.word, 1)) || substr(w.word, 2) end, '' order by w.n
    )
    from string_to_table(p_name, '_') with ordinality w (word, n)
$$;

comment on function sync_internal.wire_name(text) is 'The wire name of an SQL name.';

-- The SQL name a wire name came from; a name that does not come back is one sync.enable asks about.
create or replace function sync_internal.sql_name(p_name text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select lower(regexp_replace(p_name, '([A-Z])', '_\1', 'g'))
$$;

comment on function sync_internal.sql_name(text) is 'The SQL name a wire name came from.';

-- A value inside a subscription key. Inlined, since it is asked for every record that is delivered and nearly all
-- ids are plain.
create or replace function sync_internal.percent_encode(p_value text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when p_value collate "C" ~ '^[A-Za-z0-9_.~-]*$' then p_value
        else sync_internal.percent_encode_bytes(p_value)
    end
$$;

comment on function sync_internal.percent_encode(text)
is 'Percent-encodes all but the unreserved characters of RFC 3986.';

create or replace function sync_internal.percent_encode_bytes(p_value text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select string_agg(
        case
            when c.byte between 48 and 57 or c.byte between 65 and 90 or c.byte between 97 and 122
                or c.byte in (45, 46, 95, 126) then chr(c.byte)
            else '%' || upper(lpad(to_hex(c.byte), 2, '0'))
        end, '' order by c.n
    )
    from (
        select get_byte(convert_to(p_value, 'UTF8'), g.n) as byte, g.n
        from generate_series(0, octet_length(convert_to(p_value, 'UTF8')) - 1) g (n)
    ) c
$$;

comment on function sync_internal.percent_encode_bytes(text) is 'Percent-encodes a text byte by byte.';

-- Null where the text is no well-formed percent-encoded UTF-8.
create or replace function sync_internal.percent_decode(p_value text)
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_bytes bytea := '';
    v_part text;
begin
    if p_value !~ '^([A-Za-z0-9_.~-]|%[0-9A-Fa-f]{2})*$' then
        return null;
    elsif strpos(p_value, '%') = 0 then
        return p_value;
    end if;
    for v_part in select m.part[1] from regexp_matches(p_value, '(%[0-9A-Fa-f]{2}|[^%]+)', 'g') m (part) loop
        v_bytes := v_bytes || case
            when v_part like '\%%' then decode(substr(v_part, 2), 'hex')
            else convert_to(v_part, 'UTF8')
        end;
    end loop;
    return convert_from(v_bytes, 'UTF8');
exception
    when character_not_in_repertoire or untranslatable_character then
        return null;
end
$$;

comment on function sync_internal.percent_decode(text)
is 'Undoes percent_encode; null where the text is not well formed.';

-- A key's value as the feed writes it: through the column's type and back, so that one value has one key. Null where it
-- is none of the type's. p_type: as format_type gives it.
create or replace function sync_internal.canonical_value(p_value text, p_type text)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_value text;
begin
    execute format('select ($1::%s)::text', p_type) into v_value using p_value;
    return v_value;
exception
    when data_exception then
        return null;
end
$$;

comment on function sync_internal.canonical_value(text, text) is 'A key''s value as the feed writes it.';
grant execute on function sync_internal.canonical_value(text, text)
to anon, authenticated, service_role, rowcast_gateway;

grant execute on function
sync_internal.percent_encode(text), sync_internal.percent_encode_bytes(text), sync_internal.percent_decode(text)
to anon, authenticated, service_role, rowcast_gateway;
