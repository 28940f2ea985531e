-- Makes a table live: its rows can be read, written and heard of through Rowcast, under the table's own policies. For
-- the owner of the table. Doing it again with other arguments replaces the former ones.
--
-- p_name: the table's wire name; default: camelCase of the SQL name.  p_id: the id column; default: the primary key.
-- p_topics: the columns clients subscribe by; default: the foreign keys.  p_whole_table: may the whole table be
-- subscribed to.  p_soft_delete: a timestamptz or boolean column that delete sets.  p_touch: a timestamptz column that
-- follows every change.  p_server_owned: columns a client may never set.  p_hard_delete: delete removes the row.
-- p_exclude: columns never captured or sent.  p_names: wire names by column.  p_force: force row level security.
-- p_batch: the table's own triggers are safe beside other users' transactions in one commit: they leave no settings
-- behind.
--
-- Raises 22023 with the fix as hint. Locks the table in share row exclusive mode while the triggers are made.
create or replace function sync.enable(
    p_table regclass,
    p_name text default null,
    p_id text default null,
    p_version text default 'version',
    p_topics text[] default null,
    p_whole_table boolean default true,
    p_soft_delete text default null,
    p_touch text default null,
    p_server_owned text[] default '{}',
    p_hard_delete boolean default false,
    p_exclude text[] default '{}',
    p_names jsonb default '{}',
    p_force boolean default false,
    p_batch boolean default false
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    -- The generated code is compiled as Rowcast's owner.
    if not has_schema_privilege(
        'rowcast_owner', (select c.relnamespace from pg_catalog.pg_class c where c.oid = p_table), 'usage'
    ) then
        execute format(
            'grant usage on schema %s to rowcast_owner',
            (select c.relnamespace::regnamespace from pg_catalog.pg_class c where c.oid = p_table)
        );
    end if;
    perform sync_internal.register(
        p_table, p_name, p_id, p_version, p_whole_table, p_soft_delete, p_touch, p_hard_delete, p_batch,
        jsonb_build_object(
            'topics', p_topics, 'server_owned', p_server_owned, 'exclude', p_exclude, 'names', p_names
        )
    );
    perform sync_internal.create_triggers(p_table);
    perform sync_internal.create_watch_triggers();
    perform sync_internal.drop_orphans();
    if p_force then
        execute format('alter table %s force row level security', p_table);
    end if;
end
$$;

comment on function sync.enable(
    regclass, text, text, text, text[], boolean, text, text, text[], boolean, text[], jsonb, boolean, boolean
) is 'Makes a table live.';

-- The caller, also inside a definer function.
create or replace function sync_internal.caller()
returns name
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(nullif(current_setting('role'), 'none'), session_user)
$$;

comment on function sync_internal.caller() is 'The caller, also inside a definer function.';

create or replace function sync_internal.must_own(p_table regclass)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if not pg_catalog.pg_has_role(
        sync_internal.caller(), (select c.relowner from pg_catalog.pg_class c where c.oid = p_table), 'usage'
    ) then
        raise exception using errcode = '42501', message = format('must be owner of table %s', p_table);
    end if;
end
$$;

comment on function sync_internal.must_own(regclass) is 'Raises 42501 unless the caller owns the table.';

-- Definer: writes the registry and makes functions in sync_internal. Checks that the caller owns the table.
create or replace function sync_internal.register(
    p_table regclass, p_name text, p_id text, p_version text, p_whole_table boolean, p_soft_delete text, p_touch text,
    p_hard_delete boolean, p_batch boolean, p_options jsonb
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_class record;
    v_id record;
    v_name text;
    v_missing text;
    v_table_id integer;
    v_soft_delete smallint;
begin
    perform sync_internal.must_own(p_table);
    perform sync_internal.forget_dropped();
    select c.relname, c.relkind, c.relrowsecurity, c.relpersistence, c.relnamespace::regnamespace as schema into v_class
    from pg_catalog.pg_class c where c.oid = p_table;
    if v_class.relkind not in ('r', 'p') or v_class.relpersistence <> 'p' then
        perform sync_internal.refuse_enable(p_table, 'is no ordinary table', null);
    elsif v_class.schema in ('accounts'::regnamespace, 'sync_internal'::regnamespace) then
        perform sync_internal.refuse_enable(p_table, 'is one of Rowcast''s own', null);
    elsif exists (
        select from pg_catalog.pg_inherits i
        where i.inhrelid = p_table or i.inhparent = p_table and v_class.relkind = 'r'
    ) then
        perform sync_internal.refuse_enable(
            p_table, 'is a partition, or inherits, or is inherited from: not all of its changes would be heard of',
            'Make the partitioned table live; inheritance has no id that is unique over all of its tables.'
        );
    elsif not v_class.relrowsecurity then
        perform sync_internal.refuse_enable(
            p_table, 'has no row level security', format('alter table %s enable row level security;', p_table)
        );
    end if;

    select a.attname, a.attnum, k.kind, a.atttypid, a.attcollation into v_id
    from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    cross join lateral sync_internal.type_kind(a.atttypid) k
    where i.indrelid = p_table and i.indisunique and i.indnkeyatts = 1 and i.indpred is null and i.indexprs is null
        and a.attnotnull and case when p_id is null then i.indisprimary else a.attname = p_id end
    limit 1;
    if v_id.attname is null or v_id.kind not in ('uuid', 'text', 'bigint', 'integer') then
        perform sync_internal.refuse_enable(
            p_table, 'has no usable id',
            'An id is one not null column of type uuid, text or bigint that is the primary key or '
            'unique: p_id => ''column''.'
        );
    end if;
    -- Two texts of one id would be two records to everybody else.
    if v_id.kind = 'text' and (
        sync_internal.base_type(v_id.atttypid) not in ('text'::regtype, 'varchar'::regtype)
        or exists (
            select from pg_catalog.pg_collation c where c.oid = v_id.attcollation and not c.collisdeterministic
        )
    ) then
        perform sync_internal.refuse_enable(
            p_table, format('has an id, %I, that is equal to other texts than its own', v_id.attname),
            'An id of letters is of type text with an ordinary collation.'
        );
    end if;
    if not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = p_table and a.attname = p_version and a.attnotnull and not a.attisdropped
            and a.atttypid in ('integer'::regtype, 'bigint'::regtype)
    ) then
        perform sync_internal.refuse_enable(
            p_table, 'has no version column',
            format('alter table %s add column %I integer not null default 1;', p_table, p_version)
        );
    end if;

    select string_agg(w.column_name, ', ') into v_missing
    from (
        select p_soft_delete union select p_touch
        union select jsonb_array_elements_text(p_options -> 'server_owned')
        union select jsonb_array_elements_text(p_options -> 'exclude')
        union select jsonb_array_elements_text(
            case jsonb_typeof(p_options -> 'topics') when 'array' then p_options -> 'topics' else '[]' end
        )
        union select jsonb_object_keys(p_options -> 'names')
    ) w (column_name)
    where w.column_name is not null and not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = p_table and a.attname = w.column_name and a.attnum > 0 and not a.attisdropped
    );
    if v_missing is not null then
        perform sync_internal.refuse_enable(p_table, 'has no column ' || v_missing, null);
    end if;
    if p_options -> 'exclude' ?| array[v_id.attname, p_version, p_soft_delete, p_touch] then
        perform sync_internal.refuse_enable(
            p_table, 'cannot leave out its id, version, soft delete or touch column', null
        );
    end if;
    if jsonb_typeof(p_options -> 'topics') = 'array' and exists (
        select from pg_catalog.pg_attribute a
        cross join lateral sync_internal.type_kind(a.atttypid) k
        where a.attrelid = p_table and p_options -> 'topics' ? a.attname
            and k.kind not in ('uuid', 'text', 'integer', 'bigint', 'boolean', 'enum')
    ) then
        perform sync_internal.refuse_enable(
            p_table, 'cannot have a topic of this type',
            'Topics are columns of type uuid, text, integer, bigint, boolean or enum.'
        );
    end if;
    if p_touch is not null and not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = p_table and a.attname = p_touch and a.atttypid = 'timestamptz'::regtype
    ) then
        perform sync_internal.refuse_enable(p_table, 'needs a touch column of type timestamptz', null);
    end if;
    select a.attnum into v_soft_delete
    from pg_catalog.pg_attribute a
    where a.attrelid = p_table and a.attname = p_soft_delete
        and a.atttypid in ('timestamptz'::regtype, 'boolean'::regtype);
    if p_soft_delete is not null and v_soft_delete is null then
        perform sync_internal.refuse_enable(p_table, 'needs a soft delete column of type timestamptz or boolean', null);
    elsif v_soft_delete = any (sync_internal.policy_columns(p_table)) then
        perform sync_internal.refuse_enable(
            p_table, format('has a SELECT policy that reads %s', p_soft_delete),
            'PostgreSQL applies SELECT policies to the new row of every UPDATE: '
            'such a row could never be deleted. Leave '
            'deleted rows out in queries; Rowcast does so by itself.'
        );
    end if;

    v_name := coalesce(p_name, sync_internal.wire_name(v_class.relname));
    if v_name !~ '^[a-z][A-Za-z0-9]{0,39}$' then
        perform sync_internal.refuse_enable(
            p_table, format('cannot be named %s', v_name),
            'Say p_name => ''...'': a letter, then up to 39 letters or digits.'
        );
    elsif exists (select from sync_internal.tables t where t.name = v_name and t.relation <> p_table) then
        perform sync_internal.refuse_enable(
            p_table, format('cannot be named %s: another live table is', v_name), 'Say p_name => ''...''.'
        );
    end if;

    -- A former wire name's code goes with it.
    perform sync_internal.drop_generated(t.name)
    from sync_internal.tables t
    where t.relation = p_table and t.name <> v_name;

    insert into sync_internal.tables (
        relation, name, id_column, id_type, version_column, soft_delete, touch, hard_delete, whole_table, batch,
        foreign_triggers, depth, signature, options
    ) values (
        p_table, v_name, v_id.attname, case v_id.kind when 'integer' then 'bigint' else v_id.kind end, p_version,
        p_soft_delete, p_touch, p_hard_delete, p_whole_table, p_batch, false, 0, '', p_options
    )
    on conflict (relation) do update set
        name = excluded.name, id_column = excluded.id_column, id_type = excluded.id_type,
        version_column = excluded.version_column, soft_delete = excluded.soft_delete, touch = excluded.touch,
        hard_delete = excluded.hard_delete, whole_table = excluded.whole_table, batch = excluded.batch,
        options = excluded.options
    returning table_id into v_table_id;

    execute format('grant usage on schema sync, sync_internal to %s', sync_internal.owner_of(p_table));
    if (select n.nspowner = 'rowcast_owner'::regrole from pg_catalog.pg_namespace n where n.nspname = 'auth') then
        execute format('grant usage on schema auth to %s', sync_internal.owner_of(p_table));
    end if;
    perform sync_internal.regenerate(array(
        select v_table_id
        union
        select t.table_id
        from sync_internal.tables t
        join pg_catalog.pg_constraint c on c.conrelid = t.relation and c.confrelid = p_table and c.contype = 'f'
    ));
end
$$;

comment on function sync_internal.register(regclass, text, text, text, boolean, text, text, boolean, boolean, jsonb)
is 'Writes a table into the registry and makes its code.';

create or replace function sync_internal.owner_of(p_table regclass)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select c.relowner::regrole::text from pg_catalog.pg_class c where c.oid = p_table
$$;

comment on function sync_internal.owner_of(regclass) is 'The owner of a table, quoted.';

create or replace function sync_internal.refuse_enable(p_table regclass, p_why text, p_fix text)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    raise exception using errcode = '22023', message = format('%s %s', p_table, p_why), hint = coalesce(p_fix, '');
end
$$;

comment on function sync_internal.refuse_enable(regclass, text, text) is 'Says why a table cannot be made live.';

-- Drops what was generated under a wire name, save the trigger functions, which the triggers hold.
create or replace function sync_internal.drop_generated(p_name text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_function regprocedure;
begin
    for v_function in
        select p.oid::regprocedure
        from pg_catalog.pg_proc p
        where p.pronamespace = 'sync_internal'::regnamespace
            and p.proname ~ format(
                '^(check|patch|read|insert|update|several|lock|delete|clash)_%s_(anon|authenticated|service_role)$', p_name
            )
    loop
        execute format('drop function %s', v_function);
    end loop;
end
$$;

comment on function sync_internal.drop_generated(text) is 'Drops what was generated for a table.';

-- Forgets live tables that were dropped, with their code.
create or replace function sync_internal.forget_dropped()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
set client_min_messages = warning
as $$
declare
    v_name text;
begin
    for v_name in
        delete from sync_internal.tables t
        where not exists (select from pg_catalog.pg_class c where c.oid = t.relation)
        returning t.name
    loop
        perform sync_internal.drop_generated(v_name);
        -- A former partition, which outlives its table, may still have the triggers.
        execute format(
            'drop function if exists sync_internal.%I(), sync_internal.%I() cascade',
            'version_' || v_name, 'capture_' || v_name
        );
    end loop;
end
$$;

comment on function sync_internal.forget_dropped() is 'Forgets live tables that were dropped.';

-- Drops the trigger functions of a former wire name, once no trigger holds them. Definer: they are Rowcast's own.
create or replace function sync_internal.drop_orphans()
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
        where p.pronamespace = 'sync_internal'::regnamespace and p.prorettype = 'trigger'::regtype
            and p.proname ~ '^(version|capture)_'
            and substr(p.proname, strpos(p.proname, '_') + 1) not in (select t.name from sync_internal.tables t)
            and not exists (select from pg_trigger g where g.tgfoid = p.oid)
    loop
        execute format('drop function %s', v_function);
    end loop;
end
$$;

comment on function sync_internal.drop_orphans() is 'Drops the trigger functions of former wire names.';

-- Reads these tables anew and makes their code and the dispatch.
create or replace function sync_internal.regenerate(p_table_ids integer[])
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_table sync_internal.tables;
    v_role name;
begin
    perform sync_internal.forget_dropped();
    for v_table in select * from sync_internal.tables t where t.table_id = any (p_table_ids) order by t.table_id loop
        perform sync_internal.inspect(v_table.table_id);
        perform sync_internal.drop_generated(v_table.name);
        foreach v_role in array array['anon', 'authenticated', 'service_role']::name[] loop
            perform sync_internal.generate_write(v_table.table_id, v_role);
        end loop;
        perform sync_internal.generate_capture(v_table.table_id);
    end loop;
    perform sync_internal.measure_depth();
    perform sync_internal.measure_triggers();
    perform sync_internal.settle_watches();
    perform sync_internal.generate_dispatch();
end
$$;

comment on function sync_internal.regenerate(integer[]) is 'Makes the code of these tables anew.';

-- The triggers of a live table and of each of its partitions, and none on former ones. Invoker: only the table's owner
-- can make them.
create or replace function sync_internal.create_triggers(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_name constant text := sync_internal.live_name(p_table);
    v_part regclass;
    v_trigger record;
begin
    for v_trigger in
        select g.tgname, g.tgrelid::regclass as relation
        from pg_catalog.pg_trigger g
        join pg_catalog.pg_proc p on p.oid = g.tgfoid
        where p.pronamespace = 'sync_internal'::regnamespace and p.proname = 'capture_' || v_name
            and g.tgrelid <> p_table
            and not exists (select from pg_catalog.pg_partition_ancestors(g.tgrelid) a where a.relid = p_table)
    loop
        execute format('drop trigger %I on %s', v_trigger.tgname, v_trigger.relation);
    end loop;
    for v_part in
        select p_table
        union
        select t.relid from pg_catalog.pg_partition_tree(p_table) t
    loop
        for v_trigger in
            select *
            from (values
                ('zzz_rowcast_version', 'before update', 'for each row', 'version_' || v_name, 'enable'),
                ('zzz_rowcast_insert', 'after insert', 'referencing new table as new_rows for each statement',
                    'capture_' || v_name, 'enable'),
                ('zzz_rowcast_update', 'after update',
                    'referencing old table as old_rows new table as new_rows for each statement',
                    'capture_' || v_name, 'enable'),
                ('zzz_rowcast_delete', 'after delete', 'referencing old table as old_rows for each statement',
                    'capture_' || v_name, 'enable'),
                ('zzz_rowcast_truncate', 'after truncate', 'for each statement', 'capture_' || v_name, 'enable always'),
                -- Under replication only this one fires: appliers never fire statement triggers.
                ('zzz_rowcast_replica', 'after insert or update or delete', 'for each row',
                    'capture_' || v_name, 'enable replica')
            ) t (name, event, scope, function, firing)
        loop
            -- A partition has the row triggers of its parent.
            continue when v_part <> p_table and v_trigger.scope like 'for each row%';
            execute format(
                'create or replace trigger %I %s on %s %s execute function sync_internal.%I()',
                v_trigger.name, v_trigger.event, v_part, v_trigger.scope, v_trigger.function
            );
            execute format('alter table %s %s trigger %I', v_part, v_trigger.firing, v_trigger.name);
        end loop;
    end loop;
end
$$;

comment on function sync_internal.create_triggers(regclass) is 'Makes the triggers of a live table.';

create or replace function sync_internal.live_name(p_table regclass)
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.name from sync_internal.tables t where t.relation = p_table
$$;

comment on function sync_internal.live_name(regclass)
is 'The wire name of a live table. Definer: the registry is private.';

-- Ends what sync.enable began: the triggers, the generated code and the registry entry go, the rows stay as they are.
create or replace function sync.disable(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
-- The triggers go with their functions, which would be told of each.
set client_min_messages = warning
as $$
begin
    perform sync_internal.unregister(p_table);
    -- Policies of other tables may still read this one.
    perform sync_internal.create_watch_triggers();
end
$$;

comment on function sync.disable(regclass) is 'Ends what sync.enable began.';

-- Definer: removes a table from the registry, and its triggers with their functions, former partitions' too. Checks that
-- the caller owns it.
create or replace function sync_internal.unregister(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_table_id integer;
begin
    perform sync_internal.must_own(p_table);
    delete from sync_internal.tables t where t.relation = p_table returning t.name, t.table_id into v_name, v_table_id;
    if v_name is null then
        return;
    end if;
    perform sync_internal.drop_generated(v_name);
    execute format(
        'drop function if exists sync_internal.%I(), sync_internal.%I() cascade',
        'version_' || v_name, 'capture_' || v_name
    );
    perform sync_internal.regenerate(
        array(select distinct c.table_id from sync_internal.columns c where c.parent_id = v_table_id)
    );
end
$$;

comment on function sync_internal.unregister(regclass) is 'Removes a table from the registry.';

-- Makes the code of a live table anew after its columns, grants, indexes or policies have changed; without an argument
-- of every live table. For the owner of the table.
create or replace function sync.refresh(p_table regclass default null)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    perform sync_internal.refresh_code(p_table);
    if p_table is not null then
        perform sync_internal.create_triggers(p_table);
    end if;
    perform sync_internal.create_watch_triggers();
end
$$;

comment on function sync.refresh(regclass) is 'Makes the code of a live table anew.';

-- Definer: makes functions in sync_internal. Harmless to anyone, since it only repeats what the catalogue says.
create or replace function sync_internal.refresh_code(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_table is not null then
        perform sync_internal.must_own(p_table);
        if sync_internal.live_name(p_table) is null then
            raise exception using errcode = '22023', message = format('%s is not live', p_table);
        end if;
    end if;
    perform sync_internal.regenerate(array(
        select t.table_id from sync_internal.tables t where p_table is null or t.relation = p_table
    ));
end
$$;

comment on function sync_internal.refresh_code(regclass) is 'Makes the code of live tables anew.';
