-- The part of a subscription that the user's own rights decide. p_keys from parse_keys, p_missed from missed.
--
-- A record that changed and can be read is replayed by its patches where every change was made while the row stood
-- where it stands now, else by the record. What cannot be read is answered the same whether it is there or not: on
-- resume an unreadable record key is gone, and a collection under which nothing is readable is stale.
create or replace function sync_internal.join_keys(p_keys jsonb, p_missed sync_internal.missed, p_variant text)
returns json
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_resumed constant boolean := p_missed.hidden is not null;
    v_most_bytes constant bigint := sync_internal.setting('max_changes_read_bytes');
    v_views jsonb;
    v_answer json;
begin
    v_views := sync_internal.views_of(array(select jsonb_array_elements(p_keys -> 'keys')), p_variant);

    with
    keys as (
        select k.value ->> 'key' as key, k.value ->> 'table' as name,
            k.value ->> 'id' as id, k.value ->> 'topic' as topic
        from jsonb_array_elements(p_keys -> 'keys') k
    ),
    news as (
        select * from unnest(p_missed.changes) c
    ),
    wanted as (
        select w.name, sync_internal.well_formed(w.name, jsonb_agg(distinct w.id)) as ids
        from (
            select k.name, k.id from keys k where k.id is not null
            union
            select n.name, n.id from news n where n.id is not null
        ) w
        group by w.name
    ),
    found as materialized (
        select w.name, r.id, r.version, r.class
        from wanted w cross join lateral sync_internal.rows_of(w.name, w.ids, p_variant, false) r
    ),
    records as (
        select n.name, n.id,
            bool_and(n.kind = 'update' and not n.moved and not n.more and n.class is not distinct from f.class)
            and max(n.version) = f.version
            -- What is not shown is cut by what it is called now; it may have been called otherwise, or left.
            and n.name <> all (p_missed.behind) as by_patch,
            bool_or(n.kind = 'delete') as made_again,
            f.version, max(n.n) as n, (array_agg(n.tx_id order by n.n desc))[1] as tx_id
        from news n join found f on f.name = n.name and f.id = n.id
        group by n.name, n.id, f.version
    ),
    -- A small change may be one of a large record: beyond what is read at once it is named, and the client fetches it.
    contents as (
        select w.name, r.id,
            case when sum(octet_length(r.record)) over (order by w.name, r.id) <= v_most_bytes then r.record end
                as record
        from (
            select b.name, array_agg(b.id) as ids from records b where not b.by_patch group by b.name
        ) w
        cross join lateral sync_internal.rows_of(w.name, w.ids, p_variant, true) r
    ),
    updates as (
        select 1 as rank, n.n, json_strip_nulls(json_build_object(
            'key', n.name || ':' || sync_internal.percent_encode(n.id), 'version', n.version, 'txId', n.tx_id
        )) as head, 'patch' as member, (n.patch::jsonb - coalesce(
            array(select jsonb_array_elements_text(p_missed.hidden -> n.name)), '{}'
        ))::text as value
        from news n join records r on r.name = n.name and r.id = n.id
        where r.by_patch
        union all
        select 1, r.n, json_strip_nulls(json_build_object(
            'key', r.name || ':' || sync_internal.percent_encode(r.id), 'version', r.version, 'txId', r.tx_id
        )), 'record', c.record
        from records r join contents c on c.name = r.name and c.id = r.id
        union all
        -- Deleted and made again: its version may have fallen, which only "gone" allows.
        select 1, r.n, json_build_object('key', r.name || ':' || sync_internal.percent_encode(r.id)), 'gone', 'true'
        from records r
        where r.made_again
        union all
        select 2, 0, json_build_object('key', k.key), 'gone', 'true'
        from keys k
        where v_resumed and k.id is not null and not exists (select from found f where f.name = k.name and f.id = k.id)
    ),
    stale as (
        select k.key
        from keys k
        where p_missed.stale
            -- A record that cannot be read is gone, which says it all.
            or k.name = any (p_missed.behind) and (
                k.id is null or exists (select from found f where f.name = k.name and f.id = k.id)
            )
            or exists (select from news n where n.name = k.name and n.id is null)
            or v_resumed and k.id is null and (
                coalesce(v_views -> k.key, '[]') = '[]'
                or exists (
                    select from news n
                    where n.name = k.name and (n.kind = 'delete' or n.moved) and (k.topic is null or k.topic = any (n.topics))
                        and not exists (select from found f where f.name = n.name and f.id = n.id)
                )
            )
    )
    select json_build_object(
        'keys', (
            select coalesce(jsonb_agg(k.value - '{relation,column,type,value}'::text[]), '[]')
            from jsonb_array_elements(p_keys -> 'keys') k
        ),
        'errors', p_keys -> 'errors',
        'versions', (
            select coalesce(jsonb_object_agg(k.key, f.version), '{}')
            from keys k join found f on f.name = k.name and f.id = k.id
        ),
        'views', v_views,
        'stale', (select coalesce(json_agg(s.key), '[]') from stale s),
        'cursor', p_missed.cursor,
        'updates', (
            -- By hand: a record is text already, and taking it apart would cost more than reading it did.
            select ('[' || coalesce(string_agg(
                left(u.head::text, -1) || coalesce(',"' || u.member || '":' || u.value, '') || '}', ','
                order by u.rank, u.n, u.member = 'record'
            ), '') || ']')::json
            from updates u
        )
    )
    into v_answer;
    return v_answer;
end
$$;

comment on function sync_internal.join_keys(jsonb, sync_internal.missed, text)
is 'The part of a subscription that the user''s rights decide.';
grant execute on function sync_internal.join_keys(jsonb, sync_internal.missed, text)
to anon, authenticated, service_role;
