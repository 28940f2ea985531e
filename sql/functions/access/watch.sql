-- Tables that policies of live tables read without being live themselves, and memberships, are watched: their triggers
-- write into the feed that something changed, so that relays hear of it in the order of commits. Which, and whose
-- rights it concerns, is all they write.

-- Which tables have to be watched now, and the code for it. Triggers are made by create_watch_triggers.
create or replace function sync_internal.settle_watches()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_watch sync_internal.watches;
begin
    delete from sync_internal.memberships m
    where not exists (select from pg_catalog.pg_class c where c.oid = m.relation);

    with wanted as (
        select r.relation, m.user_column,
            array(
                select distinct u.name from sync_internal.reads o, unnest(o.column_names) u (name)
                where o.relation = r.relation order by 1
            ) as column_names
        from (select distinct x.relation from sync_internal.reads x) r
        join pg_catalog.pg_class c on c.oid = r.relation
        left join sync_internal.memberships m on m.relation = r.relation
        where c.relkind in ('r', 'p') and c.relpersistence = 'p'
            and c.relnamespace not in (
                'pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'sync_internal'::regnamespace
            )
            and (
                m.relation is not null
                or not exists (select from sync_internal.tables t where t.relation = r.relation)
            )
    ),
    gone as (
        delete from sync_internal.watches w where w.relation not in (select n.relation from wanted n)
    ),
    kept as (
        update sync_internal.watches w set column_names = n.column_names, user_column = n.user_column
        from wanted n
        where n.relation = w.relation
            and (w.column_names, w.user_column) is distinct from (n.column_names, n.user_column)
    )
    insert into sync_internal.watches (relation, column_names, user_column)
    select n.relation, n.column_names, n.user_column
    from wanted n
    where n.relation not in (select w.relation from sync_internal.watches w);

    for v_watch in select w.* from sync_internal.watches w loop
        perform sync_internal.generate_watch(v_watch);
    end loop;
end
$$;

comment on function sync_internal.settle_watches() is 'Which tables have to be watched now.';

-- Makes the trigger function of a watched table. It is definer, since no writer may write the feed.
create or replace function sync_internal.generate_watch(p_watch sync_internal.watches)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_name constant text := 'watch_' || p_watch.watch_id;
    v_exact text[];
    v_columns text[];
begin
    select array_agg(sync_internal.exact_expression(a.atttypid, 'r.' || sync_internal.quoted(a.attname)) order by a.attnum)
    into v_exact
    from pg_catalog.pg_attribute a
    where a.attrelid = p_watch.relation and a.attnum > 0 and not a.attisdropped
        and (a.attname = any (p_watch.column_names) or a.attname = p_watch.user_column);
    -- Where no text says exactly what a value is, every update counts.
    v_columns := case when array_position(v_exact, null) is null then coalesce(v_exact, '{}') end;
    execute format(
        $make$create or replace function sync_internal.%1$I() returns trigger
        language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %2$L$make$,
        v_name,
        format(
            $code$
declare
    v_changed boolean := true;
    v_users text[];
    v_none text;
begin
    case tg_level || ' ' || tg_op
    when 'STATEMENT INSERT' then
        select count(*) > 0, %2$s into v_changed, v_users from new_rows r;
    when 'STATEMENT DELETE' then
        select count(*) > 0, %2$s into v_changed, v_users from old_rows r;
    when 'STATEMENT UPDATE' then
        -- What is read of a table is the same where the same values are gone and come.
        select count(*) > 0, %3$s into v_changed, v_users
        from (
            (select %4$s from old_rows r except all select %4$s from new_rows r)
            union all
            (select %4$s from new_rows r except all select %4$s from old_rows r)
        ) d;
    when 'ROW INSERT' then
        select true, %2$s into v_changed, v_users from (select new.*) r;
    when 'ROW DELETE' then
        select true, %2$s into v_changed, v_users from (select old.*) r;
    when 'ROW UPDATE' then
        select count(*) > 0, %3$s into v_changed, v_users
        from (
            (select %4$s from (select old.*) r except all select %4$s from (select new.*) r)
            union all
            (select %4$s from (select new.*) r except all select %4$s from (select old.*) r)
        ) d;
    else
        -- TRUNCATE: whom it concerns is not known any more.
        null;
    end case;
    if v_changed then
        insert into sync_internal.changes (slot, table_name, kind, patch)
        values (
            sync_internal.feed_slot(), %1$L, 'access',
            case when cardinality(v_users) <= 1000 then json_build_object('users', v_users) end
        );
        -- A commit that may be lost must not reach a screen.
        if current_setting('synchronous_commit') = 'off' then
            v_none := set_config('synchronous_commit', 'local', true);
        end if;
        -- As the capture triggers do.
        if pg_sequence_last_value('sync_internal.bell') is distinct from 0 then
            v_none := pg_notify('rowcast', '');
        end if;
    end if;
    return null;
end
            $code$,
            sync_internal.full_name(p_watch.relation),
            case
                when p_watch.user_column is null then 'null'
                else format(
                    'coalesce(array_agg(distinct r.%1$s::text) filter (where r.%1$s is not null), ''{}'')',
                    sync_internal.quoted(p_watch.user_column)
                )
            end,
            case
                when p_watch.user_column is null then 'null'
                else 'coalesce(array_agg(distinct d.user_id) filter (where d.user_id is not null), ''{}'')'
            end,
            format(
                '%s as row_text, %s as user_id',
                -- No two are the same.
                case
                    when v_columns is null then 'gen_random_uuid()::text'
                    else format('row(%s)::text', array_to_string(v_columns, ', '))
                end,
                case
                    when p_watch.user_column is null then 'null::text'
                    else format('r.%s::text', sync_internal.quoted(p_watch.user_column))
                end
            )
        )
    );
    execute format('comment on function sync_internal.%I() is %L', v_name, 'Generated: tells of changed access.');
    execute format('revoke execute on function sync_internal.%I() from public', v_name);
    -- Whoever owns the table makes its triggers.
    execute format(
        'grant usage on schema sync_internal to %1$s; grant execute on function sync_internal.%2$I() to %1$s',
        sync_internal.owner_of(p_watch.relation), v_name
    );
end
$$;

comment on function sync_internal.generate_watch(sync_internal.watches)
is 'Makes the trigger function of a watched table.';

-- The watched tables. Definer: the registry is private.
create or replace function sync_internal.watched()
returns table (watch_id integer, relation regclass)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select w.watch_id, w.relation from sync_internal.watches w order by w.watch_id
$$;

comment on function sync_internal.watched() is 'The watched tables.';

-- Makes the triggers of watched tables and their parts that are missing or switched off, and drops those no longer
-- needed, on tables that belong to the caller: only owners can. Nothing is locked where all is as it should be.
create or replace function sync_internal.create_watch_triggers()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_trigger record;
begin
    for v_trigger in
        select f.relation, format('zzz_rowcast_watch_%s_%s', w.watch_id, n.event) as name,
            n.timing, n.scope, n.firing, 'watch_' || w.watch_id as function
        from sync_internal.watched() w
        cross join lateral sync_internal.family(w.relation) f
        join pg_catalog.pg_class c on c.oid = f.relation
        cross join (values
            ('insert', 'after insert', 'referencing new table as new_rows for each statement', 'enable', 'OA'),
            ('update', 'after update',
                'referencing old table as old_rows new table as new_rows for each statement', 'enable', 'OA'),
            ('delete', 'after delete', 'referencing old table as old_rows for each statement', 'enable', 'OA'),
            ('truncate', 'after truncate', 'for each statement', 'enable always', 'A'),
            -- Under replication only this one fires: appliers never fire statement triggers.
            ('replica', 'after insert or update or delete', 'for each row', 'enable replica', 'RA')
        ) n (event, timing, scope, firing, states)
        where pg_catalog.pg_has_role(current_user, c.relowner, 'usage') and c.relkind in ('r', 'p')
            -- A partition has the row triggers of its parent.
            and not (c.relispartition and f.relation <> w.relation and n.event = 'replica')
            and not exists (
                select from pg_catalog.pg_trigger g
                join pg_catalog.pg_proc p on p.oid = g.tgfoid
                where g.tgrelid = f.relation and g.tgname = format('zzz_rowcast_watch_%s_%s', w.watch_id, n.event)
                    and strpos(n.states, g.tgenabled::text) > 0
                    and p.pronamespace = 'sync_internal'::regnamespace and p.proname = 'watch_' || w.watch_id
            )
    loop
        execute format(
            'create or replace trigger %I %s on %s %s execute function sync_internal.%I()',
            v_trigger.name, v_trigger.timing, v_trigger.relation, v_trigger.scope, v_trigger.function
        );
        execute format('alter table %s %s trigger %I', v_trigger.relation, v_trigger.firing, v_trigger.name);
    end loop;

    for v_trigger in
        select g.tgname, g.tgrelid::regclass as relation
        from pg_catalog.pg_trigger g
        join pg_catalog.pg_class c on c.oid = g.tgrelid
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        where p.pronamespace = 'sync_internal'::regnamespace and p.proname ~ '^watch_[0-9]+$' and g.tgparentid = 0
            and pg_catalog.pg_has_role(current_user, c.relowner, 'usage')
            and not exists (select from sync_internal.watched() w where 'watch_' || w.watch_id = p.proname)
    loop
        execute format('drop trigger %I on %s', v_trigger.tgname, v_trigger.relation);
    end loop;
    perform sync_internal.drop_idle_watches();
end
$$;

comment on function sync_internal.create_watch_triggers() is 'Makes and drops the triggers of watched tables.';

-- Drops the trigger functions of tables that are watched no more, once no trigger holds them. Definer: they are
-- Rowcast's own.
create or replace function sync_internal.drop_idle_watches()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = 'sync_internal'::regnamespace and p.proname ~ '^watch_[0-9]+$'
            and not exists (select from sync_internal.watches w where 'watch_' || w.watch_id = p.proname)
            and not exists (select from pg_trigger g where g.tgfoid = p.oid)
    loop
        execute format('drop function %s', v_function);
    end loop;
end
$$;

comment on function sync_internal.drop_idle_watches() is 'Drops the trigger functions of tables watched no more.';
