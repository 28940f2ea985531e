-- What of the store is to be removed. SQL decides, whoever has the store removes, and then says so: an object goes before
-- the row that names it, so that a sweep which ends in the middle is repeated by the next. Nothing of a file is named
-- while an upload of it may still run.

-- First ends what was abandoned (pending for file_pending_days) or deleted long ago (file_trash_days): these rows go, and
-- clients hear of it. Then names files of which something is to be removed, at most p_limit of them, oldest first:
-- [{"id", "keep"}]: all objects of the id but `keep`, where that is not null. Several sweeps at once do no harm.
create or replace function sync.gateway_sweep(p_limit integer default 1000)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from sync_internal.file_tables t where not exists (select from pg_class c where c.oid = t.relation);
    update sync_internal.files f
    set doomed = true
    where not f.doomed and not exists (select from sync_internal.file_tables t where t.relation = f.relation);

    perform sync_internal.end_files(
        t.relation, sync_internal.setting('file_pending_days') * interval '1 day',
        sync_internal.setting('file_trash_days') * interval '1 day', p_limit
    )
    from sync_internal.file_tables t;

    return coalesce(
        (
            select jsonb_agg(jsonb_build_object('id', s.id, 'keep', s.keep))
            from (
                select f.id, case when not f.doomed then f.object end as keep
                from sync_internal.files f
                where (f.doomed or f.untidy) and f.busy_until < now()
                order by f.busy_until
                limit p_limit
            ) s
        ), '[]'
    );
end
$$;

comment on function sync.gateway_sweep(integer) is 'Which files'' objects are to be removed.';

-- For gateway_sweep alone, whose rights it has: ends rows of one table.
create or replace function sync_internal.end_files(
    p_relation regclass, p_pending interval, p_trash interval, p_limit integer
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    execute format(
        'delete from %s r where r.state = ''pending'' and r.id = any (array('
        'select f.id from sync_internal.files f where f.relation = $1 and f.object is null and not f.doomed '
        'and f.created_at < now() - $2 and f.busy_until < now() order by f.created_at limit $3))',
        p_relation
    ) using p_relation, p_pending, p_limit;
    execute format(
        -- Once more of the row itself, which may have been restored while the delete waited for it.
        'delete from %s r where r.deleted < now() - $1 and r.id = any (array('
        'select d.id from %s d where d.deleted < now() - $1 order by d.deleted limit $2))',
        p_relation, p_relation
    ) using p_trash, p_limit;
end
$$;

comment on function sync_internal.end_files(regclass, interval, interval, integer) is 'Ends rows of a table of files.';

-- These have been seen to. p_files: what sync.gateway_sweep has given; of what has changed since, nothing is noted.
create or replace function sync.gateway_swept(p_files jsonb)
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gone integer;
begin
    delete from sync_internal.files f
    using jsonb_to_recordset(p_files) s (id uuid, keep text)
    where f.id = s.id and s.keep is null and f.doomed and f.busy_until < now();
    get diagnostics v_gone = row_count;
    update sync_internal.files f
    set untidy = false
    from jsonb_to_recordset(p_files) s (id uuid, keep text)
    where f.id = s.id and s.keep = f.object and f.busy_until < now();
    return v_gone;
end
$$;

comment on function sync.gateway_swept(jsonb) is 'Notes that objects have been removed.';

-- These could not be removed: they wait behind the others, which they would keep from being named otherwise.
create or replace function sync.gateway_not_swept(p_ids uuid[])
returns integer
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count integer;
begin
    update sync_internal.files f set busy_until = now() where f.id = any (p_ids) and f.busy_until < now();
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

comment on function sync.gateway_not_swept(uuid[]) is 'Notes that objects could not be removed.';

-- Those of these ids that no file has: what is in the store under them belongs to nothing here.
create or replace function sync.gateway_unknown_files(p_ids uuid[])
returns uuid[]
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(i.id), '{}')
    from unnest(p_ids) i (id)
    where not exists (select from sync_internal.files f where f.id = i.id)
$$;

comment on function sync.gateway_unknown_files(uuid[]) is 'Those of these ids that no file has.';

grant execute on function
sync.gateway_sweep(integer), sync.gateway_swept(jsonb), sync.gateway_not_swept(uuid[]),
sync.gateway_unknown_files(uuid[])
to rowcast_gateway, rowcast_worker;
