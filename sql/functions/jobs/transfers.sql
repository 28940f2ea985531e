-- Exports of everything a user may read, and imports of such a file. What makes and reads the file is the worker's; here
-- is who may, what there is, and when it has an end.

-- Lets users export and import: jobs.runs becomes live, as jobRuns, and a table of files on it, as jobRunFiles. For
-- administrators, who then expose jobs.start_export(), jobs.begin_import() and jobs.start_import(uuid, jsonb), or functions of
-- theirs that call them. Harmless to repeat. Definer: the tables are Rowcast's.
create or replace function jobs.enable_transfers()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from sync_internal.tables t where t.relation = 'jobs.runs'::regclass) then
        perform sync.enable('jobs.runs', p_name => 'jobRuns', p_topics => '{}', p_exclude => '{job_id}');
    end if;
    if to_regclass('jobs.run_files') is not null then
        return;
    end if;
    perform sync.files('jobs.run_files', 'jobs.runs', 'run_id', 'jobRunFiles');
    -- Nobody changes an export; the file of an import is its user's as long as it waits for it.
    drop policy run_files_insert on jobs.run_files;
    drop policy run_files_update on jobs.run_files;
    drop policy run_files_delete on jobs.run_files;
    create policy run_files_insert on jobs.run_files for insert to authenticated
    with check (created_by is not distinct from (select auth.uid()) and exists (
        select from jobs.runs r where r.id = run_files.run_id and r.kind = 'import' and r.state = 'waiting'
    ));
    create policy run_files_update on jobs.run_files for update to authenticated
    using (created_by is not distinct from (select auth.uid()) and exists (
        select from jobs.runs r where r.id = run_files.run_id and r.kind = 'import' and r.state = 'waiting'
    ));
    create policy run_files_delete on jobs.run_files for delete to authenticated using (false);
    perform sync.refresh('jobs.run_files');
end
$$;

comment on function jobs.enable_transfers() is 'Lets users export and import.';

-- The user who is asking, as the claims of a job would name him. PT403 where there is none, PT400 where transfers are not
-- enabled.
create or replace function jobs.transferring()
returns text
language plpgsql
stable
parallel unsafe
security invoker
as $$
declare
    v_user constant text := jobs.kept_claims(sync_internal.claims()) ->> 'sub';
begin
    if to_regclass('jobs.run_files') is null then
        perform sync_internal.refuse(400, 'not_supported', 'Exports and imports are not enabled here');
    elsif v_user is null then
        perform sync_internal.refuse(403, 'forbidden', 'Exports and imports are a user''s own');
    end if;
    return v_user;
end
$$;

comment on function jobs.transferring() is 'The user who exports or imports.';

-- Starts an export of everything the user who is asking may read, and gives the id of its run, which he watches. While one
-- of his waits or runs, it is that one. Its result names the file: a record of jobRunFiles, there for export_days or until
-- his next. Definer: the queue is out of reach.
create or replace function jobs.start_export()
returns uuid
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := jobs.transferring();
    v_run uuid;
    v_job bigint;
begin
    perform pg_advisory_xact_lock(7215607, hashtext(v_user));
    select r.id into v_run
    from jobs.runs r
    where r.user_id = v_user and r.kind = 'export' and r.state in ('queued', 'running')
    order by r.created_at desc
    limit 1;
    if v_run is null then
        v_job := jobs.enqueue('export', '{}', p_key => v_user);
        select r.id into v_run from jobs.runs r where r.job_id = v_job;
    end if;
    return v_run;
end
$$;

comment on function jobs.start_export() is 'Starts an export of everything the user may read.';

-- Begins an import: gives the id of a run that waits for its file, which the user uploads as a record of jobRunFiles with that
-- runId. Of several that wait the five newest stay. Definer: the runs are Rowcast's.
create or replace function jobs.begin_import()
returns uuid
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := jobs.transferring();
    v_run uuid;
begin
    delete from jobs.runs r
    where r.id in (
        select w.id from jobs.runs w
        where w.user_id = v_user and w.kind = 'import' and w.state = 'waiting'
        order by w.created_at desc
        offset 4
    );
    insert into jobs.runs (kind, user_id, state) values ('import', v_user, 'waiting') returning id into v_run;
    return v_run;
end
$$;

comment on function jobs.begin_import() is 'Begins an import, which waits for its file.';

-- Starts the import whose file is there. p_omit: keys that are left out of the records, by table: {"workspaces":
-- ["memberIds"]}, so that nobody becomes a member by what a file says. Said again: no change. PT403 for a run that is not
-- the user's, PT409 not_ready without a file, PT400 where p_omit is none. Definer: the queue is out of reach.
create or replace function jobs.start_import(p_run uuid, p_omit jsonb default '{}')
returns uuid
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := jobs.transferring();
    v_state text;
    v_job bigint;
begin
    if jsonb_typeof(p_omit) is distinct from 'object'
        or jsonb_path_exists(p_omit, 'strict $.* ? (@.type() != "array")')
        or jsonb_path_exists(p_omit, '$.*[*] ? (@.type() != "string")') then
        perform sync_internal.refuse(
            400, 'wrong_type', 'What is left out is said as {"workspaces": ["memberIds"]}',
            '{"key": "omit"}'
        );
    end if;
    select r.state into v_state
    from jobs.runs r
    where r.id = p_run and r.user_id = v_user and r.kind = 'import'
    for no key update;
    if v_state is null then
        perform sync_internal.refuse(403, 'forbidden', 'No such record, or you may not change it');
    elsif v_state <> 'waiting' then
        return p_run;
    elsif (
        select count(*) from jobs.run_files f where f.run_id = p_run and f.state = 'ready' and f.deleted is null
    ) <> 1 then
        perform sync_internal.refuse(409, 'not_ready', 'The file is not there yet');
    end if;
    v_job := jobs.enqueue('import', jsonb_build_object('omit', p_omit));
    update jobs.runs r set job_id = v_job, state = 'queued', updated_at = now() where r.id = p_run;
    return p_run;
end
$$;

comment on function jobs.start_import(uuid, jsonb) is 'Starts the import whose file is there.';
grant execute on function jobs.start_export(), jobs.begin_import(), jobs.start_import(uuid, jsonb) to authenticated;

-- Ends files of transfers after export_days, and imports that never got one.
create or replace function jobs.prune_transfers()
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_before constant timestamptz := now() - sync_internal.setting('export_days') * interval '1 day';
begin
    if to_regclass('jobs.run_files') is not null then
        delete from jobs.run_files f
        using jobs.runs r
        where r.id = f.run_id and r.ended_at < v_before;
    end if;
    delete from jobs.runs r where r.state = 'waiting' and r.created_at < v_before;
end
$$;

comment on function jobs.prune_transfers() is 'Ends files of transfers.';
