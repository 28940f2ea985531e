-- The policies of jobs.runs: a run is read by the user whose it is, and by trusted backends; functions of its owner alone
-- write it. Here since sync_internal.subject() is there only at the end of a migration. Definer: the table is its owner's.
create or replace function jobs.install_policies()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pg_policies p where p.schemaname = 'jobs' and p.tablename = 'runs') then
        return;
    end if;
    create policy runs_owner on jobs.runs
    for select to authenticated
    using (user_id = (select sync_internal.subject()));
    create policy runs_service on jobs.runs
    for select to service_role
    using (true);
end
$$;

comment on function jobs.install_policies() is 'The policies of jobs.runs.';
