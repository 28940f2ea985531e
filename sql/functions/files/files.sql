-- Makes a table of files that hang on the records of a live table, and makes it live: one row a file, under policies that
-- follow the parent's. Who reads the parent reads its files; who may edit the parent (sync.may_edit) adds, renames and
-- deletes them. The bytes are in the gateway's store; the row is heard of like every record.
--
-- p_table: the name of the new table, with its schema: 'public.task_files'.  p_parent: a live table.  p_column: the new
-- column with the parent's id: 'task_id'; its foreign key cascades.  p_name: the wire name, as in sync.enable.
--
-- For the owner of the parent. What it makes may be altered afterwards: columns added, policies replaced. Raises 22023
-- with the fix as hint where the parent is not live or p_table is no name with a schema, 42P07 where p_table exists.
create or replace function sync.files(p_table text, p_parent regclass, p_column text, p_name text default null)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_parts constant text[] := parse_ident(p_table);
    v_name constant text := v_parts[2];
    v_parent record;
begin
    perform sync_internal.must_own(p_parent);
    if cardinality(v_parts) <> 2 then
        raise exception using errcode = '22023', message = format('%s names no schema', p_table),
            hint = 'Say it with its schema: ''public.task_files''.';
    end if;
    select k.id_column, format_type(a.atttypid, a.atttypmod) as id_type into v_parent
    from sync_internal.live_key(p_parent) k
    join pg_catalog.pg_attribute a on a.attrelid = p_parent and a.attname = k.id_column;
    if v_parent.id_column is null then
        raise exception using errcode = '22023', message = format('%s is not live', p_parent),
            hint = format('select sync.enable(%L);', p_parent);
    end if;

    execute format(
        $make$
        create table %1$I.%2$I (
            id uuid not null default gen_random_uuid(),
            %3$I %4$s not null,
            name text not null,
            type text not null default 'application/octet-stream',
            size bigint not null,
            sha256 text,
            state text not null default 'pending',
            created_by uuid default auth.uid(),
            created_at timestamptz not null default now(),
            deleted timestamptz,
            version integer not null default 1,
            constraint %5$I primary key (id),
            constraint %6$I foreign key (%3$I) references %7$s (%8$I) on delete cascade,
            constraint %9$I check (
                char_length(name) between 1 and 255 and name not in ('.', '..') and name !~ '[/\\[:cntrl:]]'
                -- unpaired, these turn what stands behind them round: cod.exe would be shown as exe.doc
                and name !~ U&'[\061C\200E\200F\2028-\202E\2066-\2069]'
            ),
            constraint %10$I check (
                type ~ '^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$'
            ),
            constraint %11$I check (size >= 0),
            constraint %12$I check (sha256 ~ '^[0-9a-f]{64}$'),
            constraint %13$I check (state in ('pending', 'ready'))
        )
        $make$,
        v_parts[1], v_name, p_column, v_parent.id_type, v_name || '_pkey', v_name || '_on_parent', p_parent,
        v_parent.id_column, v_name || '_name_is_plain', v_name || '_type_is_plain', v_name || '_size_is_none_below_zero',
        v_name || '_sha256_is_hex', v_name || '_state_known'
    );
    execute format('create index %I on %I.%I (%I)', v_name || '_' || p_column, v_parts[1], v_name, p_column);
    execute format(
        'create index %I on %I.%I (deleted) where deleted is not null', v_name || '_deleted', v_parts[1], v_name
    );
    perform sync_internal.describe_files(format('%I.%I', v_parts[1], v_name)::regclass, p_parent);
    perform sync_internal.protect_files(
        format('%I.%I', v_parts[1], v_name)::regclass, p_parent, p_column, v_parent.id_column
    );
    perform sync.enable(
        p_table => format('%I.%I', v_parts[1], v_name)::regclass,
        p_name => p_name,
        p_topics => array[p_column],
        p_soft_delete => 'deleted',
        p_server_owned => '{state,created_by,created_at}',
        p_batch => true
    );
    perform sync_internal.register_files(format('%I.%I', v_parts[1], v_name)::regclass);
    perform sync_internal.create_file_triggers(format('%I.%I', v_parts[1], v_name)::regclass);
end
$$;

comment on function sync.files(text, regclass, text, text) is 'Makes a live table of files that hang on records.';

-- What the table and its rules are called in words; those of constraints are the refusals that people read.
create or replace function sync_internal.describe_files(p_table regclass, p_parent regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_name constant text := (select c.relname from pg_catalog.pg_class c where c.oid = p_table);
    v_text record;
begin
    execute format('comment on table %s is %L', p_table, format('Files of %s. Made by sync.files.', p_parent));
    for v_text in
        select *
        from (values
            ('type', 'Media type, as its creator named it: image/png.'),
            ('size', 'Bytes.'),
            ('sha256', 'SHA-256 of the bytes, in hex; there when it is ready, before where its creator named it.'),
            ('state', 'pending: the bytes are not there yet; ready: they are, and stay as they are.')
        ) t (name, text)
    loop
        execute format('comment on column %s.%I is %L', p_table, v_text.name, v_text.text);
    end loop;
    for v_text in
        select *
        from (values
            ('name_is_plain', 'A file name has 1 to 255 characters, no slash and nothing that cannot be seen.'),
            ('type_is_plain', 'The type is a media type in lower case, without parameters: image/png.'),
            ('size_is_none_below_zero', 'The size is a number of bytes.'),
            ('sha256_is_hex', 'sha256 is 64 hexadecimal digits in lower case.'),
            ('state_known', 'The state is pending or ready.')
        ) t (name, text)
    loop
        execute format('comment on constraint %I on %s is %L', v_name || '_' || v_text.name, p_table, v_text.text);
    end loop;
end
$$;

comment on function sync_internal.describe_files(regclass, regclass) is 'Comments of a table of files.';

-- Policies and grants of a table of files. Rowcast's owner settles and sweeps.
create or replace function sync_internal.protect_files(
    p_table regclass, p_parent regclass, p_column text, p_parent_column text
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_name constant text := (select c.relname from pg_catalog.pg_class c where c.oid = p_table);
    v_may_edit constant text := format('sync.may_edit(%L::regclass, %I::text, %L)', p_parent, p_column, p_parent_column);
begin
    execute format('alter table %s enable row level security', p_table);
    execute format(
        'create policy %I on %s for select to authenticated using '
        '(exists (select 1 from %s as parent where parent.%I = %s.%I))',
        v_name || '_select', p_table, p_parent, p_parent_column, p_table, p_column
    );
    execute format(
        'create policy %I on %s for insert to authenticated with check '
        '(created_by is not distinct from (select auth.uid()) and %s)',
        v_name || '_insert', p_table, v_may_edit
    );
    execute format(
        'create policy %I on %s for update to authenticated using (%s)', v_name || '_update', p_table, v_may_edit
    );
    execute format(
        'create policy %I on %s for delete to authenticated using (%s)', v_name || '_delete', p_table, v_may_edit
    );
    execute format(
        'create policy %I on %s for all to service_role, rowcast_owner using (true) with check (true)',
        v_name || '_service', p_table
    );
    execute format('revoke all on %s from public, anon, authenticated, service_role', p_table);
    execute format('grant select on %s to authenticated, service_role', p_table);
    execute format(
        'grant insert (id, %I, name, type, size, sha256, deleted), update (name, deleted) on %s '
        'to authenticated, service_role',
        p_column, p_table
    );
    execute format('grant insert (created_by), delete on %s to service_role', p_table);
    execute format('grant select, update (state, size, sha256), delete on %s to rowcast_owner', p_table);
end
$$;

comment on function sync_internal.protect_files(regclass, regclass, text, text)
is 'Policies and grants of a table of files.';

-- The id column of a live table. Definer: the registry is private.
create or replace function sync_internal.live_key(p_table regclass)
returns table (id_column name)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.id_column from sync_internal.tables t where t.relation = p_table
$$;

comment on function sync_internal.live_key(regclass) is 'The id column of a live table.';

-- Definer: writes the registry, and lets the table's owner make the triggers. Checks that the caller owns the table.
create or replace function sync_internal.register_files(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.must_own(p_table);
    insert into sync_internal.file_tables (relation) values (p_table);
    execute format(
        'grant execute on function sync_internal.note_file(), sync_internal.doom_file(), sync_internal.doom_files() to %s',
        sync_internal.owner_of(p_table)
    );
end
$$;

comment on function sync_internal.register_files(regclass) is 'Writes a table of files into the registry.';

create or replace function sync_internal.create_file_triggers(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    execute format(
        'create trigger zzz_rowcast_file after insert on %s for each row execute function sync_internal.note_file()', p_table
    );
    execute format(
        'create trigger zzz_rowcast_file_gone after delete on %s for each row execute function sync_internal.doom_file()',
        p_table
    );
    execute format(
        'create trigger zzz_rowcast_files_gone after truncate on %s for each statement '
        'execute function sync_internal.doom_files()',
        p_table
    );
end
$$;

comment on function sync_internal.create_file_triggers(regclass) is 'The triggers of a table of files.';

-- Takes from the tables of files what would be missed without Rowcast: the triggers, and the policies that ask
-- sync.may_edit. Rows stay, to be read under the policy for that. For `rowcast remove`.
create or replace function sync_internal.release_files()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_what record;
begin
    for v_what in
        select g.tgname, g.tgrelid::regclass as relation
        from pg_catalog.pg_trigger g
        where g.tgfoid in (
            'sync_internal.note_file()'::regprocedure, 'sync_internal.doom_file()'::regprocedure,
            'sync_internal.doom_files()'::regprocedure
        )
    loop
        execute format('drop trigger %I on %s', v_what.tgname, v_what.relation);
    end loop;
    for v_what in
        select distinct p.polname, p.polrelid::regclass as relation
        from pg_catalog.pg_depend d
        join pg_catalog.pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
        where d.refclassid = 'pg_proc'::regclass and d.refobjid = 'sync.may_edit(regclass,text,text)'::regprocedure
    loop
        execute format('drop policy %I on %s', v_what.polname, v_what.relation);
    end loop;
end
$$;

comment on function sync_internal.release_files() is 'Takes Rowcast''s own parts from tables of files.';
