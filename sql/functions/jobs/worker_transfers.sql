-- What a worker calls for exports and imports.

-- The run of a job that is this worker's. PT409 where it is not, any more.
create or replace function jobs.worker_run(p_id bigint, p_worker uuid)
returns jobs.runs
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_run jobs.runs;
begin
    select r.* into v_run
    from jobs.runs r join jobs.pgqueuer j on j.id = r.job_id
    where r.job_id = p_id and j.queue_manager_id = p_worker and j.status = 'picked'
    for update of r;
    if v_run.id is null then
        perform sync_internal.refuse(409, 'lost', 'The job is another worker''s by now');
    elsif exists (
        select from sync_internal.session_ends e
        where e.user_id = sync_internal.user_key(v_run.user_id) and e.disabled
    ) then
        perform sync_internal.refuse(403, 'forbidden', 'Its user is disabled');
    end if;
    return v_run;
end
$$;

comment on function jobs.worker_run(bigint, uuid) is 'The run of a job that is this worker''s.';

-- Begins an export: {"file", "tables": [{"name", "files"}], "maxBytes"}, and "result" where it was done before. The row of
-- its file is there from now on, pending, so that what an attempt leaves in the store is known to the sweep.
create or replace function jobs.worker_export(p_id bigint, p_worker uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run constant jobs.runs := jobs.worker_run(p_id, p_worker);
    v_file record;
begin
    select f.* into v_file from jobs.run_files f where f.run_id = v_run.id;
    if v_file.id is null then
        insert into jobs.run_files (run_id, name, type, size, created_by)
        values (
            v_run.id, 'export-' || to_char(v_run.created_at at time zone 'UTC', 'YYYY-MM-DD') || '.zip',
            'application/zip', 0, null
        )
        returning * into v_file;
    end if;
    perform sync_internal.expect_upload(v_file.id, jobs.worker_until(p_id));
    return jsonb_build_object(
        'file', v_file.id, 'result', case when v_file.state = 'ready' then v_run.result end,
        'maxBytes', sync_internal.setting('max_export_bytes'),
        'tables', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', t.name,
                'files', exists (select from sync_internal.file_tables f where f.relation = t.relation)
            ) order by t.depth, t.name), '[]')
            from sync_internal.tables t
            join pg_class c on c.oid = t.relation
            where c.relnamespace <> 'jobs'::regnamespace
        )
    );
end
$$;

comment on function jobs.worker_export(bigint, uuid) is 'Begins an export.';

-- Until when an attempt at a job may write into the store, in seconds since 1970.
create or replace function jobs.worker_until(p_id bigint)
returns bigint
language sql
stable
parallel unsafe
security invoker
as $$
    select floor(extract(epoch from clock_timestamp()))::bigint + 3600 + k.timeout_seconds
    from jobs.pgqueuer j join jobs.kinds k on k.kind = j.entrypoint
    where j.id = p_id
$$;

comment on function jobs.worker_until(bigint) is 'Until when an attempt may write into the store.';

-- How many records of a table the caller may read; null where it is none of the table at all.
create or replace function sync_internal.count_readable(p_table text)
returns bigint
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_meta constant jsonb := sync_internal.meta_of(p_table, sync_internal.variant());
    v_count bigint;
begin
    if (v_meta ->> 'readable')::boolean then
        execute format('select count(*) from %s', v_meta ->> 'relation') into v_count;
    end if;
    return v_count;
end
$$;

comment on function sync_internal.count_readable(text) is 'How many records of a table the caller may read.';
grant execute on function sync_internal.count_readable(text) to anon, authenticated;

-- The objects of files in the store: {id: object}. Of files that the user may read, which his own reading has said.
create or replace function jobs.worker_objects(p_ids uuid[])
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(f.id, f.object), '{}')
    from sync_internal.files f
    where f.id = any (p_ids) and f.object is not null and not f.doomed
$$;

comment on function jobs.worker_objects(uuid[]) is 'The objects of files in the store.';

-- How many of these records, which a user could read and cannot read any more, have not been deleted since the
-- transaction p_xid: those he has lost access to. p_refs: [{"table", "id"}].
create or replace function jobs.worker_lost(p_refs jsonb, p_xid text)
returns integer
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select count(*)::integer
    from jsonb_to_recordset(p_refs) r ("table" text, id text)
    where not exists (
        select from sync_internal.changes c
        where c.xid >= p_xid::xid8 and c.kind = 'delete' and c.table_name = r."table" and c.record_id = r.id
    )
$$;

comment on function jobs.worker_lost(jsonb, text) is 'How many records a user has lost access to.';

-- Ends an export: its file is ready, its user's earlier ones go, and he gets a mail, once. p_found: what the result says
-- besides. Gives the result.
create or replace function jobs.worker_exported(
    p_id bigint, p_worker uuid, p_object text, p_bytes bigint, p_sha256 text, p_found jsonb
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run constant jobs.runs := jobs.worker_run(p_id, p_worker);
    v_file record;
    v_result jsonb;
    v_address text;
begin
    update jobs.run_files f
    set state = 'ready', size = p_bytes, sha256 = p_sha256
    where f.run_id = v_run.id and f.state = 'pending'
    returning * into v_file;
    update sync_internal.files f
    set object = p_object, bytes = p_bytes, untidy = true, busy_until = now()
    where f.id = v_file.id and not f.doomed;
    if not found then
        perform sync_internal.refuse(409, 'lost', 'The file of this export is gone');
    end if;
    v_result := p_found || jsonb_build_object(
        'file', jsonb_build_object(
            'table', (select t.name from sync_internal.tables t where t.relation = 'jobs.run_files'::regclass),
            'id', v_file.id, 'name', v_file.name, 'size', p_bytes
        )
    );
    update jobs.runs r set result = v_result, updated_at = now() where r.id = v_run.id;
    delete from jobs.run_files f
    using jobs.runs r
    where r.id = f.run_id and r.kind = 'export' and r.user_id = v_run.user_id and f.id <> v_file.id;
    select u.email into v_address from accounts.users u where u.id::text = sync_internal.user_key(v_run.user_id);
    if v_address is not null then
        perform accounts.post('export', v_address, '{}', v_run.id, '3 days');
    end if;
    return v_result;
end
$$;

comment on function jobs.worker_exported(bigint, uuid, text, bigint, text, jsonb) is 'Ends an export.';

-- Begins an import: {"run", "at": milliseconds since 1970, "file", "object", "size", "maxBytes", "maxRecordBytes",
-- "maxOperations", "quotaLeft", "omit", "tables": as sync.describe tells them, "fileTables": [names]}. quotaLeft is null
-- where an earlier attempt may have written: what it made counts already.
create or replace function jobs.worker_import(p_id bigint, p_worker uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run constant jobs.runs := jobs.worker_run(p_id, p_worker);
    v_file record;
begin
    select f.id, f.size, s.object into v_file
    from jobs.run_files f join sync_internal.files s on s.id = f.id
    where f.run_id = v_run.id and f.state = 'ready' and f.deleted is null;
    return jsonb_build_object(
        'run', v_run.id, 'at', floor(extract(epoch from v_run.created_at) * 1000), 'file', v_file.id,
        'object', v_file.object, 'size', v_file.size,
        'maxBytes', sync_internal.setting('max_export_bytes'),
        'maxRecordBytes', sync_internal.setting('max_record_bytes'),
        'maxOperations', sync_internal.setting('max_operations'),
        'quotaLeft', case when v_run.progress < 0.05 then sync_internal.setting('file_quota_bytes') - (
            select coalesce(sum(f.bytes), 0) from sync_internal.files f where f.owner = v_run.user_id
        ) end,
        'omit', (select convert_from(j.payload, 'UTF8')::jsonb -> 'omit' from jobs.pgqueuer j where j.id = p_id),
        'tables', (
            select jsonb_object_agg(d.key, d.value)
            from jsonb_each(sync.describe() -> 'tables') d
            join sync_internal.tables t on t.name = d.key
            join pg_class c on c.oid = t.relation
            where c.relnamespace <> 'jobs'::regnamespace
        ),
        'fileTables', (
            select coalesce(jsonb_agg(t.name), '[]')
            from sync_internal.file_tables f join sync_internal.tables t on t.relation = f.relation
        )
    );
end
$$;

comment on function jobs.worker_import(bigint, uuid) is 'Begins an import.';

-- What becomes of a file whose row an import has made: "state" and "size", null where it is not there. Bytes may be written
-- to the store for it from now on. p_claims: of the user, who has to be allowed to edit the row.
create or replace function jobs.worker_file(p_id bigint, p_claims jsonb, p_table text, p_file uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_relation constant regclass := sync_internal.file_table(p_table);
    v_file jsonb;
    v_ok boolean;
begin
    v_ok := sync_internal.assume(p_claims ->> 'role', p_claims::text);
    execute format(
        'select jsonb_build_object(''state'', f.state, ''size'', f.size, ''sha256'', f.sha256) from %s f '
        'where f.id = $1 for no key update', v_relation
    ) into v_file using p_file;
    v_ok := sync_internal.assume('none', null);
    if v_file is not null then
        perform jobs.worker_expect(p_id, p_file);
    end if;
    return v_file;
end
$$;

comment on function jobs.worker_file(bigint, jsonb, text, uuid) is 'A file whose row an import has made.';

create or replace function jobs.worker_expect(p_id bigint, p_file uuid)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select sync_internal.expect_upload(p_file, jobs.worker_until(p_id))
$$;

comment on function jobs.worker_expect(bigint, uuid) is 'An attempt writes into the store.';

-- The bytes of a file that an import has made are there. PT409 mismatch where they are not those the row names.
create or replace function jobs.worker_filed(
    p_id bigint, p_claims jsonb, p_table text, p_file uuid, p_object text, p_bytes bigint, p_sha256 text
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_file constant jsonb := jobs.worker_file(p_id, p_claims, p_table, p_file);
begin
    if v_file ->> 'state' = 'ready' then
        return;
    elsif v_file is null then
        perform sync_internal.refuse(403, 'forbidden', 'No such record, or you may not change it');
    elsif (v_file ->> 'size')::bigint <> p_bytes or v_file ->> 'sha256' <> p_sha256 then
        perform sync_internal.refuse(409, 'mismatch', 'The bytes of a file are not what its record says');
    end if;
    perform sync_internal.settle_file(p_file, p_object, p_bytes, p_sha256);
end
$$;

comment on function jobs.worker_filed(bigint, jsonb, text, uuid, text, bigint, text)
is 'The bytes of a file that an import has made are there.';

-- How far a transfer is; as jobs.worker_progress, and PT403 where its user was disabled meanwhile.
create or replace function jobs.worker_transfers(
    p_id bigint, p_worker uuid, p_progress double precision, p_message text
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run constant jobs.runs := jobs.worker_run(p_id, p_worker);
begin
    perform jobs.worker_progress(p_id, p_worker, p_progress, p_message);
end
$$;

comment on function jobs.worker_transfers(bigint, uuid, double precision, text) is 'How far a transfer is.';

-- Ends a transfer: done, or failed for a reason that p_result names and that its user can mend. The file of an import goes.
-- False where the job is not this worker's any more.
create or replace function jobs.worker_transferred(p_id bigint, p_worker uuid, p_state text, p_result jsonb)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_run uuid;
begin
    delete from jobs.pgqueuer j where j.id = p_id and j.queue_manager_id = p_worker and j.status = 'picked';
    if not found then
        return false;
    end if;
    select r.id into v_run from jobs.runs r where r.job_id = p_id;
    delete from jobs.run_files f where f.run_id = v_run;
    perform jobs.end_run(p_id, p_state, p_result);
    return true;
end
$$;

comment on function jobs.worker_transferred(bigint, uuid, text, jsonb) is 'Ends a transfer.';

grant execute on function
jobs.worker_export(bigint, uuid), jobs.worker_objects(uuid[]), jobs.worker_lost(jsonb, text),
jobs.worker_exported(bigint, uuid, text, bigint, text, jsonb), jobs.worker_import(bigint, uuid),
jobs.worker_file(bigint, jsonb, text, uuid), jobs.worker_expect(bigint, uuid),
jobs.worker_filed(bigint, jsonb, text, uuid, text, bigint, text),
jobs.worker_transfers(bigint, uuid, double precision, text), jobs.worker_transferred(bigint, uuid, text, jsonb),
sync_internal.settle_file(uuid, text, bigint, text), sync_internal.file_table(text)
to rowcast_worker;
