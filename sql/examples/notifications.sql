-- Example apps, notifications: who is assigned a task, or mentioned in a comment, hears of it by mail.
--
-- The rules:
--   * what somebody wants to hear of is a record of his own, which he alone reads and changes
--   * nobody hears of what he did himself, or of what he may not read when the mail is made
--   * ten edits make one mail: see accounts.notify
-- "On assignment do X" is the first trigger below, to copy: for X other than a mail it says jobs.enqueue.


-- Settings: a record under the id of its user ------------------------------------------------------

create table public.notification_settings (
    id uuid not null default auth.uid(),
    assigned boolean not null default true,
    mentioned boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1,
    constraint notification_settings_pkey primary key (id)
);
comment on table public.notification_settings is
'What a user wants to hear of by mail. Without one it is everything.';
comment on column public.notification_settings.assigned is 'a task was assigned to him';
comment on column public.notification_settings.mentioned is 'a comment names him: @name';

alter table public.notification_settings enable row level security;

create policy notification_settings_select on public.notification_settings
for select to authenticated
using (id = (select auth.uid()));

create policy notification_settings_insert on public.notification_settings
for insert to authenticated
with check (id = (select auth.uid()));

create policy notification_settings_update on public.notification_settings
for update to authenticated
using (id = (select auth.uid()))
with check (id = (select auth.uid()));

create policy notification_settings_delete on public.notification_settings
for delete to authenticated
using (false);

create policy notification_settings_service on public.notification_settings
for all to service_role
using (true)
with check (true);

revoke all on public.notification_settings from public, anon, authenticated, service_role;
grant select on public.notification_settings to authenticated, service_role;
grant
insert (id, assigned, mentioned, updated_at),
update (assigned, mentioned, updated_at)
on public.notification_settings to authenticated, service_role;
grant delete on public.notification_settings to service_role;

select sync.enable(
    'public.notification_settings',
    p_topics => '{}',
    p_touch => 'updated_at',
    p_server_owned => '{created_at}'
);

select accounts.topic('assigned', 'public.notification_settings', 'assigned');
select accounts.topic('mentioned', 'public.notification_settings', 'mentioned');


-- On assignment do X ------------------------------------------------------------------------------

-- Definer, since accounts is out of reach; it takes nothing but the row it fired for. Whoever writes,
-- the app, psql or another job, and however: the task is assigned, so this happens, in its commit.
create function app_private.tell_assignee()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform accounts.notify(new.assignee_id, 'assigned', 'tasks', new.id::text, jsonb_build_object(
        'by', (select p.name from public.profiles as p where p.id = auth.uid()),
        'title', new.title,
        'path', '/tasks'
    ));
    return null;
end
$$;
comment on function app_private.tell_assignee() is 'Trigger: who is assigned a task hears of it.';
revoke all on function app_private.tell_assignee() from public;

create trigger tasks_tell_assignee_new
after insert on public.tasks
for each row
when (new.assignee_id is not null)
execute function app_private.tell_assignee();

create trigger tasks_tell_assignee
after update on public.tasks
for each row
when (new.assignee_id is not null and new.assignee_id is distinct from old.assignee_id)
execute function app_private.tell_assignee();


-- Mentions ----------------------------------------------------------------------------------------

-- Members of the workspace whom the comment names, and did not name before.
create function app_private.tell_mentioned()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform accounts.notify(p.id, 'mentioned', 'comments', new.id::text, jsonb_build_object(
        'by', (select a.name from public.profiles as a where a.id = auth.uid()),
        'title', (select t.title from public.tasks as t where t.id = new.task_id),
        'path', '/tasks'
    ))
    from public.tasks as t
    inner join public.boards as b on b.id = t.board_id
    inner join public.workspace_members as m on m.workspace_id = b.workspace_id
    inner join public.profiles as p on p.id = m.user_id
    where t.id = new.task_id
        and strpos(lower(new.content), '@' || lower(p.name)) > 0
        and (tg_op = 'INSERT' or strpos(lower(old.content), '@' || lower(p.name)) = 0);
    return null;
end
$$;
comment on function app_private.tell_mentioned() is 'Trigger: who is named in a comment hears of it.';
revoke all on function app_private.tell_mentioned() from public;

create trigger comments_tell_mentioned_new
after insert on public.comments
for each row
when (strpos(new.content, '@') > 0)
execute function app_private.tell_mentioned();

create trigger comments_tell_mentioned
after update on public.comments
for each row
when (strpos(new.content, '@') > 0 and new.content is distinct from old.content)
execute function app_private.tell_mentioned();


-- What a user may watch of his jobs ---------------------------------------------------------------

select sync.enable('jobs.runs', p_name => 'jobRuns', p_topics => '{}', p_exclude => '{job_id}');

-- Triggers were added to tables that are live already. They enqueue a mail and change nothing else.
select sync.trust_triggers('public.tasks', '{tasks_tell_assignee_new,tasks_tell_assignee}');
select sync.trust_triggers('public.comments', '{comments_tell_mentioned_new,comments_tell_mentioned}');
