-- Example apps, transfers: everybody exports what he may read and imports it again; the owner of a workspace has another
-- system told of tasks that are done; what was deleted 90 days ago goes for good.


-- Exports and imports -----------------------------------------------------------------------------

select jobs.enable_transfers();
select sync.expose('jobs.start_export()');
select sync.expose('jobs.begin_import()');

-- Nobody becomes a member of anything by what a file says.
create function public.import_workspaces(p_run uuid)
returns uuid
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select jobs.start_import(p_run, '{"workspaces": ["memberIds"], "notebooks": ["sharedWith"]}')
$$;
comment on function public.import_workspaces(uuid) is
'Starts an import: workspaces and notebooks of the file become new ones of the user''s own.';
revoke all on function public.import_workspaces(uuid) from public;
grant execute on function public.import_workspaces(uuid) to authenticated;
select sync.expose('public.import_workspaces(uuid)');


-- Webhooks ----------------------------------------------------------------------------------------

-- Where another system hears of a workspace: its owner says so, and gets the secret that signs what is sent. Without an
-- address nothing is sent any more. Definer, since jobs is out of reach; so it looks who asks. PT403 for all but the owner.
create function public.set_workspace_webhook(p_workspace_id uuid, p_url text)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from public.workspaces as w
        where w.id = p_workspace_id and w.owner_id = auth.uid()
    ) then
        raise sqlstate 'PT403' using
            message = 'No such record, or you may not change it',
            detail = jsonb_build_object('code', 'forbidden')::text;
    elsif p_url is null then
        perform jobs.remove_webhook('workspace:' || p_workspace_id);
        return null;
    end if;
    return jobs.set_webhook('workspace:' || p_workspace_id, p_url);
end
$$;
comment on function public.set_workspace_webhook(uuid, text) is
'Where another system hears of a workspace; gives the secret that signs what it is sent.';
revoke all on function public.set_workspace_webhook(uuid, text) from public;
grant execute on function public.set_workspace_webhook(uuid, text) to authenticated;
select sync.expose('public.set_workspace_webhook(uuid, text)');

-- "On done tell X", to copy. Definer, since jobs is out of reach; it takes nothing but the row it fired for.
create function app_private.tell_webhook()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform jobs.send_webhook('workspace:' || b.workspace_id, 'task.done', jsonb_build_object(
        'id', new.id, 'boardId', new.board_id, 'title', new.title, 'assigneeId', new.assignee_id
    ))
    from public.boards as b
    where b.id = new.board_id;
    return null;
end
$$;
comment on function app_private.tell_webhook() is 'Trigger: another system hears that a task is done.';
revoke all on function app_private.tell_webhook() from public;

create trigger tasks_tell_webhook
after update on public.tasks
for each row
when (new.status = 'done' and old.status <> 'done')
execute function app_private.tell_webhook();

-- It enqueues a job and changes nothing else, as the other two do.
select sync.trust_triggers(
    'public.tasks', '{tasks_tell_assignee_new,tasks_tell_assignee,tasks_tell_webhook}'
);


-- The end of what was deleted ---------------------------------------------------------------------

select sync.purge_deleted('public.workspaces', interval '90 days');
select sync.purge_deleted('public.boards', interval '90 days');
select sync.purge_deleted('public.tasks', interval '90 days');
select sync.purge_deleted('public.comments', interval '90 days');
select sync.purge_deleted('public.notebooks', interval '90 days');
select sync.purge_deleted('public.notes', interval '90 days');
