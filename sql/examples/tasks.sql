-- Example app "tasks": workspaces > boards > tasks > comments, and who is a member of what.
--
-- The rules, each written once, as policies:
--   * a workspace is read by its owner and its members, and changed by its owner alone
--     (so only he says who is a member; a member may leave)
--   * boards are read and edited through their workspace, tasks through their board
--   * comments are read through their task and edited by their author alone
--   * nobody puts a record under a parent he may not write, and who created it never changes
--
-- How the policies are made, since they are copied from here:
--   * `column = any (array(select helper()))`: the helper runs once per statement and the policy
--     becomes an index condition (a helper called per row costs 1000 times as much on a list)
--   * helpers are security definer, so that reading the membership table does not ask the policies
--     of that table in turn, and `begin atomic`, so that Postgres records which columns they read
--   * no SELECT policy reads the soft-delete column: Postgres applies SELECT policies to the new row
--     of every UPDATE, so a deleted row would refuse to be deleted. Lists leave deleted rows out
--   * every policy names its roles; there is none for anon
-- Server-owned columns are simply not granted: `created_by` takes its default and stays.

create schema if not exists app_private;
revoke all on schema app_private from public;
comment on schema app_private is
'Helpers of the example apps. No role has usage: policies and triggers reach them, callers do not.';


-- Tables -----------------------------------------------------------------------------------------

create table public.workspaces (
    id uuid not null default gen_random_uuid(),
    name text not null,
    owner_id uuid not null default auth.uid(),
    member_ids jsonb not null default '[]',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint workspaces_pkey primary key (id),
    constraint workspaces_name_length check (char_length(name) <= 200),
    -- lower case only: the same user written in two ways would be two members of the list
    constraint workspaces_member_ids_are_users check (
        jsonb_typeof(member_ids) = 'array'
        and not jsonb_path_exists(
            member_ids,
            'strict $[*] ? (@.type() <> "string" || !(@ like_regex
                "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))',
            '{}', true
        )
    )
);
comment on table public.workspaces is
'What a group of people shares: its boards and everything on them.';
comment on column public.workspaces.member_ids is
'User ids of the members besides the owner. workspace_members follows it. @type readonly string[]';
comment on constraint workspaces_name_length on public.workspaces is
'A name has at most 200 characters.';
comment on constraint workspaces_member_ids_are_users on public.workspaces is
'memberIds must be a list of user ids (lower-case uuids).';

create table public.workspace_members (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid not null,
    user_id uuid not null,
    role text not null default 'member',
    created_at timestamptz not null default now(),
    version integer not null default 1,
    constraint workspace_members_pkey primary key (id),
    constraint workspace_members_once unique (workspace_id, user_id),
    constraint workspace_members_in_workspace
    foreign key (workspace_id) references public.workspaces (id) on delete cascade,
    constraint workspace_members_role_known check (role in ('owner', 'member'))
);
comment on table public.workspace_members is
'Who belongs to a workspace, one row each, its owner too. Kept by triggers; policies look here.';
comment on constraint workspace_members_once on public.workspace_members is
'A user is a member of a workspace once.';
comment on constraint workspace_members_role_known on public.workspace_members is
'The role is owner or member.';

create table public.boards (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid not null,
    name text not null,
    description text,
    order_key text collate "C",
    created_by uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint boards_pkey primary key (id),
    constraint boards_in_workspace
    foreign key (workspace_id) references public.workspaces (id) on delete cascade,
    constraint boards_name_length check (char_length(name) <= 200)
);
comment on table public.boards is 'A board of tasks in a workspace.';
comment on column public.boards.order_key is
'Place among its siblings: a fractional index, compared by code point. Null sorts last.';
comment on constraint boards_name_length on public.boards is 'A name has at most 200 characters.';

create table public.tasks (
    id uuid not null default gen_random_uuid(),
    board_id uuid not null,
    title text not null,
    description text,
    status text not null default 'todo',
    priority text,
    assignee_id uuid,
    due_date date,
    tags jsonb not null default '[]',
    order_key text collate "C",
    metadata jsonb not null default '{}',
    created_by uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint tasks_pkey primary key (id),
    constraint tasks_on_board
    foreign key (board_id) references public.boards (id) on delete cascade,
    constraint tasks_title_length check (char_length(title) <= 500),
    constraint tasks_status_known check (status in ('todo', 'in_progress', 'done')),
    constraint tasks_priority_known check (priority in ('low', 'medium', 'high')),
    constraint tasks_tags_are_a_list check (jsonb_typeof(tags) = 'array'),
    constraint tasks_metadata_is_an_object check (jsonb_typeof(metadata) = 'object')
);
comment on table public.tasks is 'A task on a board.';
comment on column public.tasks.order_key is
'Place on its board: a fractional index, compared by code point. Null sorts last.';
comment on column public.tasks.tags is 'Words to find it by. @type readonly string[]';
comment on column public.tasks.metadata is
'Whatever an app wants to add, edited by dotted paths. @type { [key: string]: Json }';
comment on constraint tasks_title_length on public.tasks is 'A title has at most 500 characters.';
comment on constraint tasks_status_known on public.tasks is
'The status is todo, in_progress or done.';
comment on constraint tasks_priority_known on public.tasks is
'The priority is low, medium or high, or left out.';
comment on constraint tasks_tags_are_a_list on public.tasks is 'tags must be a list.';
comment on constraint tasks_metadata_is_an_object on public.tasks is 'metadata must be an object.';

create table public.comments (
    id uuid not null default gen_random_uuid(),
    task_id uuid not null,
    content text not null,
    author_id uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint comments_pkey primary key (id),
    constraint comments_on_task
    foreign key (task_id) references public.tasks (id) on delete cascade,
    constraint comments_content_length check (char_length(content) <= 10000)
);
comment on table public.comments is 'What somebody said about a task.';
comment on constraint comments_content_length on public.comments is
'A comment has at most 10 000 characters.';

-- What policies, topics and cascades look up.
create index workspaces_owner_id on public.workspaces (owner_id);
create index workspace_members_user_id on public.workspace_members (user_id, workspace_id);
create index boards_workspace_id on public.boards (workspace_id);
create index tasks_board_id on public.tasks (board_id, order_key);
create index tasks_assignee_id on public.tasks (assignee_id);
create index comments_task_id on public.comments (task_id);


-- The membership table follows the list, and the list follows somebody who leaves -----------------

-- Makes workspace_members say what the workspace row says: its owner and its memberIds.
-- Definer, since nobody may write the membership table; it takes nothing but the row it fired for.
create function app_private.keep_workspace_members()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.workspace_members as m
    where m.workspace_id = new.id
        and m.user_id <> new.owner_id
        and not (new.member_ids ? m.user_id::text);

    insert into public.workspace_members as m (workspace_id, user_id, role)
    select
        new.id,
        u.user_id,
        case when u.user_id = new.owner_id then 'owner' else 'member' end
    from (
        select new.owner_id
        union
        select e.user_id::uuid
        from jsonb_array_elements_text(new.member_ids) as e (user_id)
    ) as u (user_id)
    on conflict (workspace_id, user_id) do update
        set role = excluded.role
        where m.role <> excluded.role;
    return null;
end
$$;
comment on function app_private.keep_workspace_members() is
'Trigger: the rows of workspace_members follow owner_id and member_ids of their workspace.';
revoke all on function app_private.keep_workspace_members() from public;

create trigger workspace_members_follow_new
after insert on public.workspaces
for each row execute function app_private.keep_workspace_members();

create trigger workspace_members_follow
after update on public.workspaces
for each row
when (
    old.member_ids is distinct from new.member_ids
    or old.owner_id is distinct from new.owner_id
)
execute function app_private.keep_workspace_members();

-- Takes a member whose row was deleted out of the list. Where the row went because the list had
-- changed, the list no longer names him and nothing is written, so the two triggers end at once.
-- Definer, since a member who leaves may not change the workspace otherwise.
create function app_private.keep_workspace_member_ids()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.workspaces as w
    set member_ids = w.member_ids - old.user_id::text
    where w.id = old.workspace_id
        and w.member_ids ? old.user_id::text;
    return null;
end
$$;
comment on function app_private.keep_workspace_member_ids() is
'Trigger: member_ids of a workspace loses the member whose row was deleted.';
revoke all on function app_private.keep_workspace_member_ids() from public;

create trigger workspace_member_ids_follow
after delete on public.workspace_members
for each row execute function app_private.keep_workspace_member_ids();


-- What the policies ask ---------------------------------------------------------------------------

create function app_private.my_workspace_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select m.workspace_id
    from public.workspace_members as m
    where m.user_id = (select auth.uid());
end;
comment on function app_private.my_workspace_ids() is 'The workspaces the user belongs to.';
revoke all on function app_private.my_workspace_ids() from public;
grant execute on function app_private.my_workspace_ids() to authenticated, service_role;

create function app_private.owned_workspace_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select w.id
    from public.workspaces as w
    where w.owner_id = (select auth.uid());
end;
comment on function app_private.owned_workspace_ids() is 'The workspaces the user owns.';
revoke all on function app_private.owned_workspace_ids() from public;
grant execute on function app_private.owned_workspace_ids() to authenticated, service_role;

create function app_private.my_board_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select b.id
    from public.workspace_members as m
    inner join public.boards as b on b.workspace_id = m.workspace_id
    where m.user_id = (select auth.uid());
end;
comment on function app_private.my_board_ids() is
'The boards of the workspaces the user belongs to.';
revoke all on function app_private.my_board_ids() from public;
grant execute on function app_private.my_board_ids() to authenticated, service_role;


-- Policies: workspaces ----------------------------------------------------------------------------

alter table public.workspaces enable row level security;

-- The owner is named besides the membership table so that he sees the row while it is being
-- inserted, before the trigger has made him a member.
create policy workspaces_select on public.workspaces
for select to authenticated
using (
    owner_id = (select auth.uid())
    or id = any (array(select app_private.my_workspace_ids()))
);

create policy workspaces_insert on public.workspaces
for insert to authenticated
with check (owner_id = (select auth.uid()));

create policy workspaces_update on public.workspaces
for update to authenticated
using (owner_id = (select auth.uid()))
with check (owner_id = (select auth.uid()));

-- No grant goes with it: a workspace is deleted by its soft-delete column.
create policy workspaces_delete on public.workspaces
for delete to authenticated
using (owner_id = (select auth.uid()));

create policy workspaces_service on public.workspaces
for all to service_role
using (true)
with check (true);


-- Policies: workspace_members ---------------------------------------------------------------------

alter table public.workspace_members enable row level security;

create policy workspace_members_select on public.workspace_members
for select to authenticated
using (workspace_id = any (array(select app_private.my_workspace_ids())));

-- Written by the triggers above alone: memberIds of the workspace is the one way in.
create policy workspace_members_insert on public.workspace_members
for insert to authenticated
with check (false);

create policy workspace_members_update on public.workspace_members
for update to authenticated
using (false)
with check (false);

-- A member leaves; the owner sends him away. The owner himself stays.
create policy workspace_members_delete on public.workspace_members
for delete to authenticated
using (
    role <> 'owner'
    and (
        user_id = (select auth.uid())
        or workspace_id = any (array(select app_private.owned_workspace_ids()))
    )
);

create policy workspace_members_service on public.workspace_members
for all to service_role
using (true)
with check (true);


-- Policies: boards --------------------------------------------------------------------------------

alter table public.boards enable row level security;

create policy boards_select on public.boards
for select to authenticated
using (workspace_id = any (array(select app_private.my_workspace_ids())));

create policy boards_insert on public.boards
for insert to authenticated
with check (
    workspace_id = any (array(select app_private.my_workspace_ids()))
    and created_by = (select auth.uid())
);

create policy boards_update on public.boards
for update to authenticated
using (workspace_id = any (array(select app_private.my_workspace_ids())))
with check (workspace_id = any (array(select app_private.my_workspace_ids())));

create policy boards_delete on public.boards
for delete to authenticated
using (workspace_id = any (array(select app_private.my_workspace_ids())));

create policy boards_service on public.boards
for all to service_role
using (true)
with check (true);


-- Policies: tasks ---------------------------------------------------------------------------------

alter table public.tasks enable row level security;

create policy tasks_select on public.tasks
for select to authenticated
using (board_id = any (array(select app_private.my_board_ids())));

create policy tasks_insert on public.tasks
for insert to authenticated
with check (
    board_id = any (array(select app_private.my_board_ids()))
    and created_by = (select auth.uid())
);

create policy tasks_update on public.tasks
for update to authenticated
using (board_id = any (array(select app_private.my_board_ids())))
with check (board_id = any (array(select app_private.my_board_ids())));

create policy tasks_delete on public.tasks
for delete to authenticated
using (board_id = any (array(select app_private.my_board_ids())));

create policy tasks_service on public.tasks
for all to service_role
using (true)
with check (true);


-- Policies: comments ------------------------------------------------------------------------------

alter table public.comments enable row level security;

-- Not `= any (array(...))`: a user has few boards and any number of tasks, and the array would be
-- made anew by each statement (with 11 000 tasks, the comments of one task: 18 ms against 1 ms).
-- The task's own policy decides: whoever reads a task reads what hangs on it.
create policy comments_select on public.comments
for select to authenticated
using (exists (select 1 from public.tasks as t where t.id = comments.task_id));

create policy comments_insert on public.comments
for insert to authenticated
with check (
    author_id = (select auth.uid())
    and exists (select 1 from public.tasks as t where t.id = comments.task_id)
);

create policy comments_update on public.comments
for update to authenticated
using (
    author_id = (select auth.uid())
    and exists (select 1 from public.tasks as t where t.id = comments.task_id)
)
with check (
    author_id = (select auth.uid())
    and exists (select 1 from public.tasks as t where t.id = comments.task_id)
);

create policy comments_delete on public.comments
for delete to authenticated
using (
    author_id = (select auth.uid())
    and exists (select 1 from public.tasks as t where t.id = comments.task_id)
);

create policy comments_service on public.comments
for all to service_role
using (true)
with check (true);


-- Grants: what is not named here nobody sends -----------------------------------------------------
-- `version` and `created_at` belong to the server, `owner_id`, `created_by` and `author_id` are whose
-- session it was; a trusted backend, which has no user of its own, names them when it inserts.

revoke all on
public.workspaces, public.workspace_members, public.boards, public.tasks, public.comments
from public, anon, authenticated, service_role;

grant select on
public.workspaces, public.workspace_members, public.boards, public.tasks, public.comments
to authenticated, service_role;

grant
insert (id, name, member_ids, updated_at, deleted),
update (name, member_ids, updated_at, deleted)
on public.workspaces to authenticated, service_role;
grant insert (owner_id), update (owner_id), delete on public.workspaces to service_role;

-- leaving, and sending away
grant delete on public.workspace_members to authenticated, service_role;

grant
insert (id, workspace_id, name, description, order_key, updated_at, deleted),
update (workspace_id, name, description, order_key, updated_at, deleted)
on public.boards to authenticated, service_role;
grant insert (created_by), delete on public.boards to service_role;

grant
insert (
    id, board_id, title, description, status, priority, assignee_id, due_date, tags, order_key,
    metadata, updated_at, deleted
),
update (
    board_id, title, description, status, priority, assignee_id, due_date, tags, order_key,
    metadata, updated_at, deleted
)
on public.tasks to authenticated, service_role;
grant insert (created_by), delete on public.tasks to service_role;

grant
insert (id, task_id, content, updated_at, deleted),
update (task_id, content, updated_at, deleted)
on public.comments to authenticated, service_role;
grant insert (author_id), delete on public.comments to service_role;


-- A function for `call` ---------------------------------------------------------------------------

-- Sets every task of a board that is not deleted to done and returns how many changed.
-- Acts with the rights of the caller. Raises PT403 `forbidden` where he cannot read the board,
-- which is the same answer as for a board that does not exist.
create function public.complete_board(p_board_id uuid)
returns integer
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count integer;
begin
    if not exists (select 1 from public.boards as b where b.id = p_board_id) then
        raise sqlstate 'PT403' using
            message = 'No such record, or you may not change it',
            detail = jsonb_build_object('code', 'forbidden')::text;
    end if;

    update public.tasks as t
    set status = 'done'
    where t.board_id = p_board_id
        and t.deleted is null
        and t.status <> 'done';
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function public.complete_board(uuid) is
'Sets every task of a board to done and returns how many changed.';
revoke all on function public.complete_board(uuid) from public;
grant execute on function public.complete_board(uuid) to authenticated, service_role;


-- Live --------------------------------------------------------------------------------------------
-- `batch`: the triggers above touch nothing but rows of their own workspace and leave no setting.

select sync.enable(
    'public.workspaces',
    p_topics => '{}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{owner_id,created_at}',
    p_batch => true
);
select sync.enable(
    'public.workspace_members',
    p_topics => '{workspace_id,user_id}',
    p_server_owned => '{created_at}',
    p_hard_delete => true,
    p_batch => true
);
select sync.membership('public.workspace_members', p_user_column => 'user_id');
select sync.enable(
    'public.boards',
    p_topics => '{workspace_id}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{created_by,created_at}'
);
select sync.enable(
    'public.tasks',
    p_topics => '{board_id,assignee_id}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{created_by,created_at}'
);
select sync.enable(
    'public.comments',
    p_topics => '{task_id}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{author_id,created_at}'
);
select sync.expose('public.complete_board(uuid)');
