-- What a subscription begins with: which of the keys are well formed, which records and collections the user can read
-- now, and what he missed since his cursor. Stable: everything comes from one snapshot, that of the cursor returned.
--
-- p_keys: 'tasks:<id>', 'tasks?boardId=<value>' or 'tasks'. p_cursor: where the client left off; null: from now on.
-- p_opaque: tables of which the caller knows that their access cannot be followed: resumed keys of theirs are stale.
-- Gives {"keys": [{key, table, id? | topic?}], "errors": [{key, code}], "versions": {recordKey: n}, "views": {key: [the
-- classes of rows readable under it]}, "stale": [keys], "cursor", "updates": [...]}. A key that is not readable, or
-- names what is not there, is accepted all the same and says nothing.
create or replace function sync.gateway_subscribe(
    p_claims text, p_keys text[], p_cursor text, p_opaque text[] default '{}'
)
returns text
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_role text := sync_internal.claimed_role(p_claims);
    v_keys constant jsonb := sync_internal.parse_keys(p_keys);
    v_missed sync_internal.missed;
    v_answer json;
    v_ok boolean;
begin
    if cardinality(p_keys) > sync_internal.setting('max_keys') then
        perform sync_internal.refuse_limit(422, 'max_keys');
    end if;
    -- The feed is the gateway's to read; everything after it is the user's.
    v_missed := sync_internal.missed(p_cursor, v_keys, v_role, p_claims::jsonb ->> 'sub', p_opaque);
    v_role := sync_internal.assume_claims(p_claims, v_role);
    v_answer := sync_internal.join_keys(v_keys, v_missed, v_role);
    v_ok := sync_internal.assume('none', null);
    return v_answer;
exception
    when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce
        or insufficient_privilege then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync.gateway_subscribe(text, text[], text, text[]) is 'What a subscription begins with.';
grant execute on function sync.gateway_subscribe(text, text[], text, text[]) to rowcast_gateway;

-- The parts of keys: {"keys": [{key, table, id | topic, column, value}], "errors": [{key, code}]}. Definer:
-- the registry is private. Its plan is made once a session: making it takes longer than carrying it out.
create or replace function sync_internal.parse_keys(p_keys text[])
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return (
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
    );
end
$$;

comment on function sync_internal.parse_keys(text[]) is 'The parts of subscription keys.';

-- The changes since a cursor that touch any of the keys, with the cursor that covers them. Far behind, the keys are
-- stale instead. Of a record changed more than five times only the last change is listed, with more, its last delete, and
-- where it moved.
--
-- What the policies of a table read may have changed meanwhile, and the policies themselves: its keys are stale then, as
-- are those of tables in p_opaque. p_user: whom memberships concern.
--
-- Its cost follows what the client missed of its own: while little has happened the feed is read from the cursor on,
-- after that by the keys. What reads the feed are functions of their own, so that only missed_far is planned at each call:
-- a thousand who come back at once would wait for their plans. Stable: rows and cursor belong to one snapshot.
--
-- Definer: callers have no right on the feed.
create or replace function sync_internal.missed(
    p_cursor text, p_keys jsonb, p_role text, p_user text, p_opaque text[]
)
returns sync_internal.missed
language plpgsql
stable
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_most constant bigint := sync_internal.setting('max_changes_read');
    v_most_bytes constant bigint := sync_internal.setting('max_changes_read_bytes');
    v_from record;
    v_missed sync_internal.missed;
    -- Looked up by name: a client may hold two thousand keys and ten thousand changes may have come.
    v_keys jsonb;
    v_tables text[];
    v_whole text[];
    v_terms text[];
    v_is_near boolean;
begin
    select * into v_from from sync_internal.read_cursor(p_cursor);
    v_missed.cursor := sync_internal.cursor_now(case when v_from.stale then '0' else v_from.xmax end);
    v_missed.stale := p_cursor is not null and v_from.stale;
    v_missed.behind := '{}';
    v_missed.changes := '{}';
    if v_from.stale then
        return v_missed;
    end if;

    select
        coalesce(jsonb_object_agg(concat_ws(
            case when k.value ? 'id' then ':' else '?' end, k.value ->> 'table',
            coalesce(k.value ->> 'id', k.value ->> 'topic')
        ), true), '{}'),
        coalesce(array_agg(distinct k.value ->> 'table'), '{}'),
        coalesce(array_agg(distinct k.value ->> 'table') filter (where not k.value ?| '{id,topic}'), '{}'),
        coalesce(
            array_agg(distinct coalesce(k.value ->> 'id', k.value ->> 'topic')) filter (where k.value ?| '{id,topic}'),
            '{}'
        )
    into v_keys, v_tables, v_whole, v_terms
    from jsonb_array_elements(p_keys -> 'keys') k;
    v_missed.hidden := sync_internal.hidden_columns(p_role, v_tables);
    v_is_near := sync_internal.is_near(v_from.xmax);

    with
    matching as materialized (
        select * from sync_internal.missed_near(v_from.xmax, v_from.xips, v_tables, v_whole, v_keys)
        where v_is_near
        union all
        select * from sync_internal.missed_far(v_from.xmax, v_from.xips, v_tables, v_whole, v_keys, v_terms, v_most)
        where not v_is_near
    ),
    -- Where that is too much nothing is known of any table: one may fill all that is read by itself. Deletes have no patch.
    measured as materialized (
        select
            count(*) > v_most or coalesce(sum(pg_column_size(m.patch)), 0) > v_most_bytes as much,
            coalesce(array_agg(m.table_name) filter (where m.record_id is null), '{}') as bulk
        from matching m
    ),
    counted as (
        select m.*, count(*) over w > 5 as more, max(m.seq) over w as last,
            max(m.seq) filter (where m.kind = 'delete') over w as last_delete
        from matching m
        where not (select x.much from measured x)
        window w as (partition by m.record_id collate "C", m.table_name collate "C")
    ),
    listed as (
        select c.*, row_number() over (order by c.xid, c.seq) as n
        from counted c
        where not c.more or c.moved or c.seq in (c.last, c.last_delete)
    )
    select
        (
            select case when x.much then v_tables else array(select distinct b.name from unnest(x.bulk) b (name)) end
            from measured x
        ),
        (
            select coalesce(array_agg(
                (
                    l.n, l.table_name, l.record_id, l.version, l.kind, l.class,
                    l.moved, l.more, l.topics, case when not l.more then l.patch end,
                    (
                        select r.tx_id from sync_internal.receipts r
                        where r.xid = l.xid and l.seq between r.seq_from and r.seq_to
                        -- A function that was called may itself have applied one: the inner one made it.
                        order by r.seq_from desc
                        limit 1
                    )
                )::sync_internal.missed_change order by l.n
            ), '{}')
            from listed l
        )
    into v_missed.behind, v_missed.changes;
    v_missed.behind := v_missed.behind || p_opaque
        || sync_internal.touched(v_tables, v_from.xmax, v_from.xips, p_user);
    return v_missed;
end
$$;

comment on function sync_internal.missed(text, jsonb, text, text, text[])
is 'The changes since a cursor that touch any of the keys.';

-- Whether few changes lie after a cursor, 5000 at most. Its plan is made once a session, perhaps while the feed is
-- empty, so it is kept at the index. Before PostgreSQL 18 what is switched off counts as costly, and would be compiled.
create or replace function sync_internal.is_near(p_xmax xid8)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_sort = off
as $$
begin
    return (
        select count(*) <= 5000
        from (select from sync_internal.changes c where c.xid >= p_xmax order by c.xid, c.seq limit 5001) c
    );
end
$$;

comment on function sync_internal.is_near(xid8) is 'Whether few changes lie after a cursor.';

-- The changes after a cursor that concern the keys, where all after it are few: all are looked at, each once. Its plan is
-- made once a session, since that takes longer than all it does.
create or replace function sync_internal.missed_near(
    p_xmax xid8, p_xips xid8[], p_tables text[], p_whole text[], p_keys jsonb
)
returns table (
    xid xid8, seq bigint, table_name text, record_id text, version bigint, kind text, topics text[], class text,
    patch json, moved boolean
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_sort = off
as $$
#variable_conflict use_column
begin
    return query
    select c.xid, c.seq, c.table_name, c.record_id, c.version, c.kind, c.topics, c.class, c.patch,
        c.class_before is not null
    from (
        (
            -- All of them, as is_near has found.
            select c.* from sync_internal.changes c
            where c.xid >= p_xmax
            order by c.xid, c.seq
            limit 5000
        )
        union all
        -- Those that were running when the cursor was made lie below its xmax.
        select c.* from sync_internal.changes c
        where c.xid = any (p_xips) and c.xid < p_xmax
    ) c
    where c.table_name = any (p_tables) and (
        c.record_id is null or c.table_name = any (p_whole)
        or sync_internal.is_keyed(p_keys, c.table_name, c.record_id, c.topics)
    );
end
$$;

comment on function sync_internal.missed_near(xid8, xid8[], text[], text[], jsonb)
is 'The changes after a cursor that concern the keys, where all are few.';

-- The same where there are many after it: found by the keys, up to p_most of them and one more. p_terms: the ids and topics
-- of p_keys. Planned for what it is given.
create or replace function sync_internal.missed_far(
    p_xmax xid8, p_xips xid8[], p_tables text[], p_whole text[], p_keys jsonb, p_terms text[], p_most bigint
)
returns table (
    xid xid8, seq bigint, table_name text, record_id text, version bigint, kind text, topics text[], class text,
    patch json, moved boolean
)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
begin
    return query
    select c.xid, c.seq, c.table_name, c.record_id, c.version, c.kind, c.topics, c.class, c.patch,
        c.class_before is not null
    from (
        (
            select c.* from sync_internal.changes c
            where c.xid >= p_xmax and array_append(c.topics, c.record_id) && p_terms
                and c.table_name = any (p_tables) and c.table_name <> all (p_whole)
                -- All that makes it one of ours before the limit: other tables may share a topic.
                and sync_internal.is_keyed(p_keys, c.table_name, c.record_id, c.topics)
            limit p_most + 1
        )
        union all
        (
            select c.* from sync_internal.changes c
            where c.xid >= p_xmax and c.table_name = any (p_whole)
            order by c.table_name, c.xid
            limit p_most + 1
        )
        union all
        -- What names no record concerns every key of its table.
        select c.* from sync_internal.changes c
        where c.xid >= p_xmax and c.record_id is null
            and c.table_name = any (p_tables) and c.table_name <> all (p_whole)
        union all
        -- Those that were running when the cursor was made lie below its xmax.
        select c.* from sync_internal.changes c
        where c.xid = any (p_xips) and c.xid < p_xmax and c.table_name = any (p_tables)
            and (
                c.record_id is null or c.table_name = any (p_whole)
                or sync_internal.is_keyed(p_keys, c.table_name, c.record_id, c.topics)
            )
    ) c;
end
$$;

comment on function sync_internal.missed_far(xid8, xid8[], text[], text[], jsonb, text[], bigint)
is 'The changes after a cursor that concern the keys, where there are many.';

-- Whether one of the keys names a record, or one of its collections. p_keys: {"tasks:<id>": true, "tasks?<topic>":
-- true}. Inlined, and without a query of its own: it is asked of every change. Topics hold no line break. Stable, as
-- array_to_string is: else it could not be inlined.
create or replace function sync_internal.is_keyed(p_keys jsonb, p_table text, p_id text, p_topics text[])
returns boolean
language sql
stable
parallel safe
security invoker
as $$
    select p_keys ?| string_to_array(
        p_table || '?' || array_to_string(p_topics, E'\n' || p_table || '?'), E'\n'
    ) or p_keys ? (p_table || ':' || p_id)
$$;

comment on function sync_internal.is_keyed(jsonb, text, text, text[])
is 'Whether one of the keys names a record or one of its collections.';

-- Those of some tables whose policies read what has changed since a cursor, or whose policies have changed; also where
-- too much has changed to look at. Its plan is made once a session.
create or replace function sync_internal.touched(p_tables text[], p_xmax xid8, p_xips xid8[], p_user text)
returns text[]
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    return (
        with
        -- How the feed tells of each table that is read: a live one by its changes, else by changes of kind access. names:
        -- what is read of it, null where the feed does not list a part of that.
        sources as (
            select t.name,
                case when l.table_id is null then sync_internal.full_name(r.relation) else l.name end as source,
                (
                    select case when coalesce(bool_and(k.name is not null), true) then coalesce(array_agg(k.name), '{}') end
                    from unnest(r.column_names) n (name)
                    left join sync_internal.columns k
                        on k.table_id = l.table_id and k.column_name = n.name and k.column_name <> l.version_column
                ) as names
            from sync_internal.tables t
            join sync_internal.reads r on r.table_id = t.table_id
            left join sync_internal.tables l on l.relation = r.relation and not exists (
                select from sync_internal.memberships m where m.relation = r.relation
            )
            where t.name = any (p_tables)
            union all
            -- The policies themselves, whatever they read.
            select t.name, '', null from unnest(p_tables) t (name)
        )
        select coalesce(array_agg(distinct s.name), '{}')
        from sources s
        where (
            -- Nobody waits for everybody's changes of a month to be looked through.
            select count(*) > 10000
            from (
                select from sync_internal.changes c
                where (c.table_name, c.xid) >= (s.source, p_xmax) and c.table_name <= s.source
                limit 10001
            ) c
        ) or exists (
            select
            from (
                -- Compared as pairs, so that nothing but the index by table and xid will do: by xid alone every change of
                -- every table would be looked at.
                select c.kind, c.patch from sync_internal.changes c
                where (c.table_name, c.xid) >= (s.source, p_xmax) and c.table_name <= s.source
                union all
                select c.kind, c.patch from sync_internal.changes c
                where c.table_name = s.source and c.xid = any (p_xips) and c.xid < p_xmax
            ) c
            where case
                when c.kind in ('schema', 'bulk', 'truncate', 'insert', 'delete') then true
                when c.kind = 'access' then c.patch is null or c.patch::jsonb -> 'users' ?| array[p_user, lower(p_user)]
                else s.names is null or exists (select from unnest(s.names) n (name) where c.patch -> n.name is not null)
            end
        )
    );
end
$$;

comment on function sync_internal.touched(text[], xid8, xid8[], text)
is 'Those of some tables whose policies read what has changed since a cursor.';

-- A gateway has seen the policies as this fingerprint says. Where they were seen otherwise last, whoever resumes from an
-- earlier cursor has to read anew.
create or replace function sync.gateway_note_policies(p_fingerprint text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update sync_internal.state s set fingerprint = p_fingerprint where s.fingerprint <> p_fingerprint;
    if found then
        insert into sync_internal.changes (slot, table_name, kind)
        values (sync_internal.feed_slot(), '', 'schema');
    end if;
    return found;
end
$$;

comment on function sync.gateway_note_policies(text) is 'A gateway has seen the policies as this fingerprint says.';
grant execute on function sync.gateway_note_policies(text) to rowcast_gateway;

grant execute on function sync_internal.parse_keys(text[]), sync_internal.missed(text, jsonb, text, text, text[])
to rowcast_gateway;
