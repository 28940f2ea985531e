-- Records that were deleted long ago go for good, and the planner learns what autovacuum leaves out: once a day over all
-- workers.

-- Deleted records of a live table go for good after p_after, at least a day; null: never, as of every table of which this
-- was not said. With them goes what hangs on them by foreign keys that cascade. For the owner of the table: Rowcast gets
-- the right to delete what is deleted, by a policy. Raises 22023 where the table has no soft delete.
create or replace function sync.purge_deleted(p_table regclass, p_after interval)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_key record;
begin
    perform sync_internal.must_own(p_table);
    select k.* into v_key from sync_internal.purge_columns(p_table) k;
    execute format('drop policy if exists rowcast_purge on %s', p_table);
    if p_after is null then
        perform sync_internal.note_purge(p_table, null);
    elsif v_key.deleted is null then
        raise exception using errcode = '22023', message = format('%s is not live, or has no soft delete', p_table),
            hint = 'Say p_soft_delete to sync.enable.';
    else
        execute format(
            'create policy rowcast_purge on %s for all to rowcast_owner using (%s)', p_table, v_key.condition
        );
        -- What triggers and locks of a delete look at is not known: the row as it is.
        execute format('grant select, update, delete on %s to rowcast_owner', p_table);
        perform sync_internal.note_purge(p_table, p_after);
    end if;
    perform sync.refresh(p_table);
end
$$;

comment on function sync.purge_deleted(regclass, interval) is 'Deleted records of a table go for good after a time.';

-- How a live table says that a record is deleted. Definer: the registry is private.
create or replace function sync_internal.purge_columns(p_table regclass)
returns table (id_column name, deleted name, timed boolean, condition text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.id_column, t.soft_delete, a.atttypid <> 'boolean'::regtype,
        format(case when a.atttypid = 'boolean'::regtype then '%I' else '%I is not null' end, t.soft_delete)
    from sync_internal.tables t
    join pg_catalog.pg_attribute a on a.attrelid = t.relation and a.attname = t.soft_delete
    where t.relation = p_table
$$;

comment on function sync_internal.purge_columns(regclass) is 'How a live table says that a record is deleted.';

-- Definer: the list is private. Checks that the caller owns the table.
create or replace function sync_internal.note_purge(p_table regclass, p_after interval)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.must_own(p_table);
    delete from jobs.purges p where p.relation = p_table;
    if p_after is not null then
        if not exists (select from sync_internal.purge_columns(p_table) k where k.timed) then
            raise exception using errcode = '22023',
                message = format('%s does not say when a record was deleted', p_table),
                hint = 'The soft-delete column has to be a timestamptz.';
        end if;
        insert into jobs.purges (relation, after) values (p_table, p_after);
    end if;
end
$$;

comment on function sync_internal.note_purge(regclass, interval) is 'Notes after how long deleted records go.';

-- Ends records that were deleted long enough ago, at most p_limit of one table, those first that hang on others; gives how
-- many, 0 where there are no more. Of one: the transaction is short, for as long as it is open nobody's cursor gets on.
-- What is locked is left to the next time, and so is what something else refers to. For the worker.
create or replace function jobs.worker_purge(p_limit integer default 500)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
    v_count integer;
begin
    delete from jobs.purges p where not exists (select from pg_class c where c.oid = p.relation);
    for v_table in
        select p.relation, p.after, k.id_column, k.deleted
        from jobs.purges p
        join sync_internal.tables t on t.relation = p.relation
        cross join lateral sync_internal.purge_columns(p.relation) k
        order by t.depth desc, t.name
    loop
        v_count := jobs.purge_some(v_table.relation, v_table.id_column, v_table.deleted, v_table.after, p_limit);
        if v_count > 0 then
            return v_count;
        end if;
    end loop;
    return 0;
end
$$;

comment on function jobs.worker_purge(integer) is 'Ends records that were deleted long ago.';
grant execute on function jobs.worker_purge(integer) to rowcast_worker;

-- For worker_purge alone, whose rights it has: relation and columns come from the registry.
create or replace function jobs.purge_some(
    p_relation regclass, p_id name, p_deleted name, p_after interval, p_limit integer
)
returns integer
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_some constant text := format(
        'delete from %1$s r where r.ctid = any (array('
        'select d.ctid from %1$s d where d.%2$I < now() - $1 order by d.%2$I limit $2 for update skip locked))',
        p_relation, p_deleted
    );
    v_one record;
    v_count integer;
    v_all integer := 0;
    v_left integer := 0;
    v_state text;
begin
    begin
        execute v_some using p_after, p_limit;
        get diagnostics v_count = row_count;
        return v_count;
    exception
        when others then null;
    end;
    -- Something refers to one of them, or a trigger of the application refuses, by whatever state: each by itself. Not the
    -- oldest alone, or those that have to stay would keep the others here. Not many: from 64 subtransactions on they cost
    -- every other session something.
    for v_one in execute format(
        'select d.%1$I as id from %2$s d where d.%3$I < now() - $1'
        ' order by random() limit 10 * $2::bigint for update skip locked',
        p_id, p_relation, p_deleted
    ) using p_after, p_limit
    loop
        begin
            execute format('delete from %s r where r.%I = $1', p_relation, p_id) using v_one.id;
            v_all := v_all + 1;
        exception
            when foreign_key_violation or restrict_violation or raise_exception then null;
            when others then
                v_left := v_left + 1;
                v_state := sqlstate;
        end;
        exit when v_all >= least(p_limit, 60);
    end loop;
    if v_left > 0 then
        raise warning 'purge of %: % could not be deleted, the last for SQLSTATE %', p_relation, v_left, v_state;
    end if;
    return v_all;
end
$$;

comment on function jobs.purge_some(regclass, name, name, interval, integer) is 'Ends records of one table.';

-- Statistics that autovacuum does not gather: of partitioned tables as a whole, by which the feed is read.
create or replace function jobs.worker_statistics()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass;
begin
    for v_table in
        select c.oid from pg_catalog.pg_class c
        where c.relkind = 'p' and c.relowner = 'rowcast_owner'::regrole
    loop
        execute format('analyze %s', v_table);
    end loop;
end
$$;

comment on function jobs.worker_statistics() is 'Statistics that autovacuum does not gather.';
grant execute on function jobs.worker_statistics() to rowcast_worker;

-- Takes from the application's tables what purging needed. For `rowcast remove`.
create or replace function jobs.release_purges()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_table regclass;
begin
    for v_table in
        select p.polrelid from pg_catalog.pg_policy p
        where p.polname = 'rowcast_purge' and p.polroles = array['rowcast_owner'::regrole::oid]
    loop
        execute format('drop policy rowcast_purge on %s', v_table);
        execute format('revoke select, update, delete on %s from rowcast_owner', v_table);
    end loop;
end
$$;

comment on function jobs.release_purges() is 'Takes from tables what purging needed.';
