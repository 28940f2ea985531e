-- What a subscription begins with: which of the keys are well formed, which records and collections the user can read
-- now, and what he missed since his cursor. Everything comes from one snapshot, that of the cursor returned.
--
-- p_keys: 'tasks:<id>', 'tasks?boardId=<value>' or 'tasks'. p_cursor: where the client left off; null: from now on.
-- Gives {"keys": [{key, table, id? | topic?}], "errors": [{key, code}], "versions": {recordKey: n}, "evidence": [keys
-- under which something is readable], "stale": [keys], "cursor", "updates": [...]}. A key that is not readable, or
-- names what is not there, is accepted all the same and says nothing.
create or replace function sync.gateway_subscribe(p_claims text, p_keys text[], p_cursor text)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_role constant text := sync_internal.claimed_role(p_claims);
    v_keys constant jsonb := sync_internal.parse_keys(p_keys);
    v_missed jsonb;
    v_answer json;
begin
    if cardinality(p_keys) > sync_internal.setting('max_keys') then
        perform sync_internal.refuse_limit(422, 'max_keys');
    end if;
    -- The feed is the gateway's to read; everything after it is the user's.
    v_missed := sync_internal.missed(p_cursor, v_keys, v_role);
    perform sync_internal.assume_claims(p_claims);
    v_answer := sync_internal.join_keys(v_keys, v_missed, v_role);
    perform sync_internal.assume('none', null);
    return v_answer;
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce
        or insufficient_privilege then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_subscribe(text, text[], text) is 'What a subscription begins with.';
grant execute on function sync.gateway_subscribe(text, text[], text) to rowcast_gateway;

-- The parts of keys: {"keys": [{key, table, id | topic, column, value}], "errors": [{key, code}]}. Definer:
-- the registry is private.
create or replace function sync_internal.parse_keys(p_keys text[])
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with
    parts as (
        select k.key, m.part[1] as name, m.part[2] as kind, m.part[3] as rest
        from (select distinct u.key from unnest(p_keys) u (key)) k
        left join lateral regexp_match(k.key, '^([a-z][A-Za-z0-9]*)(?:([:?])(.*))?$') m (part)
            on octet_length(k.key) <= 256
    ),
    known as (
        select p.*, t.name as "table", t.relation::text as relation, t.id_column, t.id_type, t.whole_table,
            c.column_name, c.name as wire, c.sql_type, case when c.sql_type is not null then
                sync_internal.canonical_value(sync_internal.percent_decode(split_part(p.rest, '=', 2)), c.sql_type)
            end as value,
            case when p.kind = ':' then sync_internal.percent_decode(p.rest) end as id
        from parts p
        left join sync_internal.tables t
            on t.name = p.name and exists (select from pg_class r where r.oid = t.relation)
        left join sync_internal.columns c
            on c.table_id = t.table_id and p.kind = '?' and c.topic and c.name = split_part(p.rest, '=', 1)
    ),
    judged as (
        select k.*,
            case
                when k.name is null then 'bad_key'
                when k."table" is null then 'unknown_table'
                when k.kind = ':' and coalesce(k.id, '') = '' then 'bad_key'
                when k.kind = '?' and (strpos(k.rest, '=') = 0 or strpos(split_part(k.rest, '=', 2), '&') > 0)
                    then 'bad_key'
                when k.kind = '?' and k.column_name is null then 'unknown_collection'
                -- One value has one key: another form of it would be listened to in vain.
                when k.kind = '?' and k.rest is distinct from k.wire || '=' || sync_internal.percent_encode(k.value)
                    then 'bad_key'
                when k.kind = ':' and k.rest <> sync_internal.percent_encode(k.id) then 'bad_key'
                when k.kind is null and not k.whole_table then 'unknown_collection'
            end as code
        from known k
    )
    select jsonb_build_object(
        'keys', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'key', j.key, 'table', j."table", 'id', j.id,
            'topic', case when j.kind = '?' then j.wire || '=' || sync_internal.percent_encode(j.value) end,
            'relation', j.relation, 'column', j.column_name, 'type', j.sql_type,
            'value', case when j.kind = '?' then j.value end
        ))) filter (where j.code is null), '[]'),
        'errors', coalesce(
            jsonb_agg(jsonb_build_object('key', j.key, 'code', j.code)) filter (where j.code is not null), '[]'
        )
    )
    from judged j
$$;

comment on function sync_internal.parse_keys(text[]) is 'The parts of subscription keys.';

-- The changes since a cursor that touch any of the keys, with the cursor that covers them, from one statement. Far
-- behind, the keys are stale instead. Definer: callers have no right on the feed.
create or replace function sync_internal.missed(p_cursor text, p_keys jsonb, p_role text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_from record;
    v_news record;
    v_stale boolean := false;
    -- Looked up by name: a client may hold two thousand keys and ten thousand changes may have come.
    v_tables jsonb;
    v_whole jsonb;
    v_records jsonb;
    v_topics jsonb;
begin
    select
        coalesce(jsonb_object_agg(k.value ->> 'table', true), '{}'),
        coalesce(jsonb_object_agg(k.value ->> 'table', true) filter (where not k.value ?| '{id,topic}'), '{}'),
        coalesce(
            jsonb_object_agg(concat(k.value ->> 'table', ':', k.value ->> 'id'), true)
            filter (where k.value ? 'id'), '{}'
        ),
        coalesce(
            jsonb_object_agg(concat(k.value ->> 'table', '?', k.value ->> 'topic'), true)
            filter (where k.value ? 'topic'), '{}'
        )
    into v_tables, v_whole, v_records, v_topics
    from jsonb_array_elements(p_keys -> 'keys') k;
    if p_cursor is not null then
        select * into v_from from sync_internal.read_cursor(p_cursor);
        v_stale := v_from.stale;
    end if;
    if p_cursor is null or v_stale then
        return jsonb_build_object(
            'cursor', sync_internal.cursor_now(), 'stale', v_stale,
            'behind', '[]'::jsonb, 'changes', '[]'::jsonb
        );
    end if;
    select * into v_news
    from sync_internal.read_changes(v_from.xmax, v_from.xips, sync_internal.setting('max_changes_read'));
    return jsonb_build_object(
        'cursor', v_news.cursor, 'stale', false, 'behind', v_news.behind, 'hidden', sync_internal.hidden_columns(
            p_role, array(select distinct k.value ->> 'table' from jsonb_array_elements(p_keys -> 'keys') k)
        ),
        'changes', (
            select coalesce(jsonb_agg(c.value), '[]')
            from json_array_elements(v_news.changes) c
            where case
                when c.value ->> 'id' is null then v_tables ? (c.value ->> 'table')
                else v_whole ? (c.value ->> 'table')
                    or v_records ? concat(c.value ->> 'table', ':', c.value ->> 'id')
                    or exists (
                        select from json_array_elements_text(c.value -> 'topics') t (topic)
                        where v_topics ? concat(c.value ->> 'table', '?', t.topic)
                    )
            end
        )
    );
end
$$;

comment on function sync_internal.missed(text, jsonb, text) is 'The changes since a cursor that touch any of the keys.';

grant execute on function sync_internal.parse_keys(text[]), sync_internal.missed(text, jsonb, text) to rowcast_gateway;
