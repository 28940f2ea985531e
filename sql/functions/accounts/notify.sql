-- Telling people by mail of what concerns them: a digest each, so that ten edits make one mail.

-- Says which record decides whether somebody wants mails of a topic: the row of p_table whose id is the user's, its
-- boolean column p_column; true where there is no row. An "unsubscribe" in a mail sets it to false, as that user and
-- under his policies. For administrators. Said again, it replaces. Raises 22023.
create or replace function accounts.topic(p_topic text, p_table regclass, p_column text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    if not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = p_table and a.attname = p_column and a.atttypid = 'boolean'::regtype and not a.attisdropped
    ) or not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = p_table and a.attname = 'id' and a.atttypid = 'uuid'::regtype and not a.attisdropped
    ) then
        raise exception using errcode = '22023',
            message = format('%s has no uuid id, or no boolean column %s', p_table, p_column);
    end if;
    insert into accounts.topics (topic, relation, setting) values (p_topic, p_table, p_column)
    on conflict (topic) do update set relation = excluded.relation, setting = excluded.setting;
end
$$;

comment on function accounts.topic(text, regclass, text) is 'Says which record decides whether somebody wants a mail.';

-- Tells a user of a record by his next digest, digest_seconds from now at the earliest; of one record once, however
-- often this is said until then. p_table, p_id: a live record by its wire name; whether he may read it is asked when the
-- mail is made. p_details: {"by", "title", "path"}: who did it, what the record is called, where the app shows it.
-- Nothing for the user who is asking himself. Raises 23503 for a topic that is not known. For triggers of administrators.
create or replace function accounts.notify(
    p_user uuid, p_topic text, p_table text, p_id text, p_details jsonb default '{}'
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_user is null or p_user::text = sync_internal.user_key(sync_internal.subject()) then
        return;
    end if;
    insert into accounts.notices as n (user_id, topic, table_name, record_id, details)
    values (
        p_user, p_topic, p_table, p_id,
        jsonb_build_object(
            'by', left(p_details ->> 'by', 80), 'title', left(p_details ->> 'title', 200),
            'path', left(p_details ->> 'path', 500)
        )
    )
    on conflict (user_id, topic, table_name, record_id) do update set details = excluded.details;
    perform accounts.put_digest(p_user);
end
$$;

comment on function accounts.notify(uuid, text, text, text, jsonb) is 'Tells a user of a record by his next digest.';

create or replace function accounts.put_digest(p_user uuid)
returns bigint
language sql
volatile
parallel unsafe
security invoker
as $$
    select jobs.put(
        'digest', jsonb_build_object('user', p_user), null,
        now() + sync_internal.setting('digest_seconds') * interval '1 second', p_user::text
    )
$$;

comment on function accounts.put_digest(uuid) is 'Has a digest made, unless one is to be made already.';

-- Makes the digest of a user: what he wants to hear of and may read now goes into one mail to his verified address, and
-- the rest is forgotten. Gives how many things it tells. Invoker: settings and records are read as the user. One
-- transaction: a notice is in one mail. For the worker.
create or replace function accounts.worker_digest(p_user uuid)
returns integer
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_all constant jsonb := accounts.worker_notices(p_user);
    v_told jsonb;
begin
    if v_all = '[]' then
        return 0;
    end if;
    v_told := accounts.worker_wanted(p_user, v_all);
    return accounts.worker_post_digest(
        p_user,
        jsonb_path_query_array(v_told, '$[*].notice'),
        jsonb_path_query_array(v_all, '$[*].notice')
    );
end
$$;

comment on function accounts.worker_digest(uuid) is 'Makes the digest of a user.';

-- Those of these things, [{"topic", "table", "id", ...}], that a user wants to hear of and may read now. Invoker: it asks
-- as the user.
create or replace function accounts.worker_wanted(p_user uuid, p_items jsonb)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_topics constant jsonb := accounts.gateway_topics(array(
        select distinct i.value ->> 'topic' from jsonb_array_elements(p_items) i
    ));
    v_topic record;
    v_wants boolean;
    v_wanted text[] := '{}';
    v_map jsonb;
    v_role text;
    v_ok boolean;
begin
    v_ok := sync_internal.assume(
        'authenticated', jsonb_build_object('sub', p_user, 'role', 'authenticated')::text
    );
    for v_topic in
        select t.topic, t.relation, t.setting
        from jsonb_to_recordset(v_topics) t (topic text, relation text, setting text)
    loop
        execute format('select r.%I from %s r where r.id = $1', v_topic.setting, v_topic.relation)
        into v_wants using p_user;
        if v_wants is not false then
            v_wanted := v_wanted || v_topic.topic;
        end if;
    end loop;
    v_map := (
        sync.get_records(jsonb_build_object('pointers', (
            select jsonb_agg(distinct jsonb_build_object('table', i.value -> 'table', 'id', i.value -> 'id'))
            from jsonb_array_elements(p_items) i
        )))::jsonb
    ) -> 'recordMap';
    v_role := set_config('role', 'none', true);
    return (
        select coalesce(jsonb_agg(i.value order by i.ordinality), '[]')
        from jsonb_array_elements(p_items) with ordinality i
        where i.value ->> 'topic' = any (v_wanted)
            and v_map -> (i.value ->> 'table') -> (i.value ->> 'id') is not null
            and coalesce(v_map -> (i.value ->> 'table') -> (i.value ->> 'id') -> 'deleted', 'null') = 'null'
    );
end
$$;

comment on function accounts.worker_wanted(uuid, jsonb) is 'What of these a user wants to hear of and may read.';

-- Where the digests of a user go: his verified address; null for none, and where he is disabled.
create or replace function accounts.digest_address(p_user uuid)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select u.email
    from accounts.users u
    where u.id = p_user
        and not exists (select from sync_internal.session_ends e where e.user_id = u.id::text and e.disabled)
$$;

comment on function accounts.digest_address(uuid) is 'Where the digests of a user go.';

-- What a user is to be told of, at most 200 things. Locks them until the transaction ends.
create or replace function accounts.worker_notices(p_user uuid)
returns jsonb
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with locked as (
        select n.* from accounts.notices n where n.user_id = p_user order by n.created_at, n.id limit 200 for update
    )
    select coalesce(jsonb_agg(
        jsonb_build_object('notice', l.id, 'topic', l.topic, 'table', l.table_name, 'id', l.record_id)
        order by l.created_at, l.id
    ), '[]')
    from locked l
$$;

comment on function accounts.worker_notices(uuid) is 'What a user is to be told of.';

create or replace function accounts.worker_post_digest(p_user uuid, p_told jsonb, p_all jsonb)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_address constant text := accounts.digest_address(p_user);
    v_items jsonb;
begin
    with gone as (
        delete from accounts.notices n
        where n.user_id = p_user and n.id in (select a.value::uuid from jsonb_array_elements_text(p_all) a)
        returning n.*
    )
    select jsonb_agg(
        jsonb_build_object('topic', g.topic, 'table', g.table_name, 'id', g.record_id) || g.details
        order by g.created_at, g.id
    ) into v_items
    from gone g
    where p_told ? g.id::text;
    if exists (select from accounts.notices n where n.user_id = p_user) then
        perform accounts.put_digest(p_user);
    end if;
    if v_items is null or v_address is null then
        return 0;
    end if;
    perform accounts.post(
        'digest', v_address, jsonb_build_object('user', p_user, 'items', v_items), null, '3 days'
    );
    return jsonb_array_length(v_items);
end
$$;

comment on function accounts.worker_post_digest(uuid, jsonb, jsonb)
is 'Posts a digest and forgets what it was made of.';
grant execute on function
accounts.worker_digest(uuid), accounts.worker_notices(uuid), accounts.worker_wanted(uuid, jsonb),
accounts.worker_post_digest(uuid, jsonb, jsonb)
to rowcast_worker;

-- The user wants no more mails of these topics: sets his settings, as he would himself. Harmless to repeat. Topics that
-- are not known are passed over. Whether the link is his, the gateway has found by its signature.
create or replace function accounts.gateway_unsubscribe(p_user uuid, p_topics text[])
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_topics constant jsonb := accounts.gateway_topics(p_topics);
    v_topic record;
    v_ok boolean;
begin
    v_ok := sync_internal.assume(
        'authenticated', jsonb_build_object('sub', p_user, 'role', 'authenticated')::text
    );
    for v_topic in
        select t.relation, t.setting from jsonb_to_recordset(v_topics) t (relation text, setting text)
    loop
        execute format(
            'insert into %1$s as r (id, %2$I) values ($1, false) '
            'on conflict (id) do update set %2$I = false where r.%2$I',
            v_topic.relation, v_topic.setting
        ) using p_user;
    end loop;
end
$$;

comment on function accounts.gateway_unsubscribe(uuid, text[]) is 'The user wants no more mails of these topics.';

create or replace function accounts.gateway_topics(p_topics text[])
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'topic', t.topic, 'relation', t.relation::text, 'setting', t.setting
    )), '[]')
    from accounts.topics t join pg_class c on c.oid = t.relation
    where t.topic = any (p_topics)
$$;

comment on function accounts.gateway_topics(text[]) is 'Where the settings of these topics are.';
grant execute on function accounts.gateway_unsubscribe(uuid, text[]), accounts.gateway_topics(text[])
to rowcast_gateway;
grant execute on function accounts.gateway_topics(text[]) to rowcast_worker;
