-- Example app "notes": notebooks > notes, and with whom a notebook is shared.
--
-- The rules:
--   * a notebook is read by its owner and by those he shares it with, and changed by him alone
--     (somebody it is shared with may leave)
--   * notes are read and edited through their notebook
--   * nobody puts a note into a notebook he may not write, and who created it never changes
-- How such policies are made is told at the head of tasks.sql.

create schema if not exists app_private;
revoke all on schema app_private from public;


-- Tables -----------------------------------------------------------------------------------------

create table public.notebooks (
    id uuid not null default gen_random_uuid(),
    name text not null,
    owner_id uuid not null default auth.uid(),
    shared_with jsonb not null default '[]',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint notebooks_pkey primary key (id),
    constraint notebooks_name_length check (char_length(name) <= 200),
    -- lower case only: the same user written in two ways would be two entries of the list
    constraint notebooks_shared_with_are_users check (
        jsonb_typeof(shared_with) = 'array'
        and not jsonb_path_exists(
            shared_with,
            'strict $[*] ? (@.type() <> "string" || !(@ like_regex
                "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))',
            '{}', true
        )
    )
);
comment on table public.notebooks is 'A notebook: notes of one person, perhaps shared with others.';
comment on column public.notebooks.shared_with is
'User ids of those who read and edit it besides the owner. notebook_members follows it. @type readonly string[]';
comment on constraint notebooks_name_length on public.notebooks is
'A name has at most 200 characters.';
comment on constraint notebooks_shared_with_are_users on public.notebooks is
'sharedWith must be a list of user ids (lower-case uuids).';

create table public.notebook_members (
    id uuid not null default gen_random_uuid(),
    notebook_id uuid not null,
    user_id uuid not null,
    role text not null default 'member',
    created_at timestamptz not null default now(),
    version integer not null default 1,
    constraint notebook_members_pkey primary key (id),
    constraint notebook_members_once unique (notebook_id, user_id),
    constraint notebook_members_in_notebook
    foreign key (notebook_id) references public.notebooks (id) on delete cascade,
    constraint notebook_members_role_known check (role in ('owner', 'member'))
);
comment on table public.notebook_members is
'Who may use a notebook, one row each, its owner too. Kept by triggers; policies look here.';
comment on constraint notebook_members_once on public.notebook_members is
'A notebook is shared with a user once.';
comment on constraint notebook_members_role_known on public.notebook_members is
'The role is owner or member.';

create table public.notes (
    id uuid not null default gen_random_uuid(),
    notebook_id uuid not null,
    title text not null default '',
    content text not null default '',
    tags jsonb not null default '[]',
    is_pinned boolean not null default false,
    created_by uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted timestamptz,
    version integer not null default 1,
    constraint notes_pkey primary key (id),
    constraint notes_in_notebook
    foreign key (notebook_id) references public.notebooks (id) on delete cascade,
    constraint notes_title_length check (char_length(title) <= 500),
    constraint notes_tags_are_a_list check (jsonb_typeof(tags) = 'array')
);
comment on table public.notes is 'A note in a notebook.';
comment on column public.notes.tags is 'Words to find it by. @type readonly string[]';
comment on constraint notes_title_length on public.notes is 'A title has at most 500 characters.';
comment on constraint notes_tags_are_a_list on public.notes is 'tags must be a list.';

-- What policies, topics and cascades look up.
create index notebooks_owner_id on public.notebooks (owner_id);
create index notebook_members_user_id on public.notebook_members (user_id, notebook_id);
create index notes_notebook_id on public.notes (notebook_id);


-- The membership table follows the list, and the list follows somebody who leaves -----------------

-- Makes notebook_members say what the notebook row says: its owner and its sharedWith.
-- Definer, since nobody may write the membership table; it takes nothing but the row it fired for.
create function app_private.keep_notebook_members()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from public.notebook_members as m
    where m.notebook_id = new.id
        and m.user_id <> new.owner_id
        and not (new.shared_with ? m.user_id::text);

    insert into public.notebook_members as m (notebook_id, user_id, role)
    select
        new.id,
        u.user_id,
        case when u.user_id = new.owner_id then 'owner' else 'member' end
    from (
        select new.owner_id
        union
        select e.user_id::uuid
        from jsonb_array_elements_text(new.shared_with) as e (user_id)
    ) as u (user_id)
    on conflict (notebook_id, user_id) do update
        set role = excluded.role
        where m.role <> excluded.role;
    return null;
end
$$;
comment on function app_private.keep_notebook_members() is
'Trigger: the rows of notebook_members follow owner_id and shared_with of their notebook.';
revoke all on function app_private.keep_notebook_members() from public;

create trigger notebook_members_follow_new
after insert on public.notebooks
for each row execute function app_private.keep_notebook_members();

create trigger notebook_members_follow
after update on public.notebooks
for each row
when (
    old.shared_with is distinct from new.shared_with
    or old.owner_id is distinct from new.owner_id
)
execute function app_private.keep_notebook_members();

-- Takes somebody whose row was deleted out of the list. Where the row went because the list had
-- changed, the list no longer names him and nothing is written, so the two triggers end at once.
-- Definer, since somebody who leaves may not change the notebook otherwise.
create function app_private.keep_notebook_shared_with()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update public.notebooks as n
    set shared_with = n.shared_with - old.user_id::text
    where n.id = old.notebook_id
        and n.shared_with ? old.user_id::text;
    return null;
end
$$;
comment on function app_private.keep_notebook_shared_with() is
'Trigger: shared_with of a notebook loses the one whose row was deleted.';
revoke all on function app_private.keep_notebook_shared_with() from public;

create trigger notebook_shared_with_follows
after delete on public.notebook_members
for each row execute function app_private.keep_notebook_shared_with();


-- What the policies ask ---------------------------------------------------------------------------

create function app_private.my_notebook_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select m.notebook_id
    from public.notebook_members as m
    where m.user_id = (select auth.uid());
end;
comment on function app_private.my_notebook_ids() is 'The notebooks the user may use.';
revoke all on function app_private.my_notebook_ids() from public;
grant execute on function app_private.my_notebook_ids() to authenticated, service_role;

create function app_private.owned_notebook_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select n.id
    from public.notebooks as n
    where n.owner_id = (select auth.uid());
end;
comment on function app_private.owned_notebook_ids() is 'The notebooks the user owns.';
revoke all on function app_private.owned_notebook_ids() from public;
grant execute on function app_private.owned_notebook_ids() to authenticated, service_role;


-- Policies: notebooks -----------------------------------------------------------------------------

alter table public.notebooks enable row level security;

-- The owner is named besides the membership table so that he sees the row while it is being
-- inserted, before the trigger has made him a member.
create policy notebooks_select on public.notebooks
for select to authenticated
using (
    owner_id = (select auth.uid())
    or id = any (array(select app_private.my_notebook_ids()))
);

create policy notebooks_insert on public.notebooks
for insert to authenticated
with check (owner_id = (select auth.uid()));

create policy notebooks_update on public.notebooks
for update to authenticated
using (owner_id = (select auth.uid()))
with check (owner_id = (select auth.uid()));

-- No grant goes with it: a notebook is deleted by its soft-delete column.
create policy notebooks_delete on public.notebooks
for delete to authenticated
using (owner_id = (select auth.uid()));

create policy notebooks_service on public.notebooks
for all to service_role
using (true)
with check (true);


-- Policies: notebook_members ----------------------------------------------------------------------

alter table public.notebook_members enable row level security;

create policy notebook_members_select on public.notebook_members
for select to authenticated
using (notebook_id = any (array(select app_private.my_notebook_ids())));

-- Written by the triggers above alone: sharedWith of the notebook is the one way in.
create policy notebook_members_insert on public.notebook_members
for insert to authenticated
with check (false);

create policy notebook_members_update on public.notebook_members
for update to authenticated
using (false)
with check (false);

-- Somebody leaves; the owner stops sharing with him. The owner himself stays.
create policy notebook_members_delete on public.notebook_members
for delete to authenticated
using (
    role <> 'owner'
    and (
        user_id = (select auth.uid())
        or notebook_id = any (array(select app_private.owned_notebook_ids()))
    )
);

create policy notebook_members_service on public.notebook_members
for all to service_role
using (true)
with check (true);


-- Policies: notes ---------------------------------------------------------------------------------

alter table public.notes enable row level security;

create policy notes_select on public.notes
for select to authenticated
using (notebook_id = any (array(select app_private.my_notebook_ids())));

create policy notes_insert on public.notes
for insert to authenticated
with check (
    notebook_id = any (array(select app_private.my_notebook_ids()))
    and created_by = (select auth.uid())
);

create policy notes_update on public.notes
for update to authenticated
using (notebook_id = any (array(select app_private.my_notebook_ids())))
with check (notebook_id = any (array(select app_private.my_notebook_ids())));

create policy notes_delete on public.notes
for delete to authenticated
using (notebook_id = any (array(select app_private.my_notebook_ids())));

create policy notes_service on public.notes
for all to service_role
using (true)
with check (true);


-- Grants: what is not named here nobody sends -----------------------------------------------------

revoke all on public.notebooks, public.notebook_members, public.notes
from public, anon, authenticated, service_role;

grant select on public.notebooks, public.notebook_members, public.notes
to authenticated, service_role;

grant
insert (id, name, shared_with, updated_at, deleted),
update (name, shared_with, updated_at, deleted)
on public.notebooks to authenticated, service_role;
grant insert (owner_id), update (owner_id), delete on public.notebooks to service_role;

-- leaving, and ending a share
grant delete on public.notebook_members to authenticated, service_role;

grant
insert (id, notebook_id, title, content, tags, is_pinned, updated_at, deleted),
update (notebook_id, title, content, tags, is_pinned, updated_at, deleted)
on public.notes to authenticated, service_role;
grant insert (created_by), delete on public.notes to service_role;


-- Live --------------------------------------------------------------------------------------------
-- `batch`: the triggers above touch nothing but rows of their own notebook and leave no setting.

select sync.enable(
    'public.notebooks',
    p_topics => '{}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{owner_id,created_at}',
    p_batch => true
);
select sync.enable(
    'public.notebook_members',
    p_topics => '{notebook_id,user_id}',
    p_server_owned => '{created_at}',
    p_hard_delete => true,
    p_batch => true
);
select sync.membership('public.notebook_members', p_user_column => 'user_id');
select sync.enable(
    'public.notes',
    p_topics => '{notebook_id}',
    p_soft_delete => 'deleted',
    p_touch => 'updated_at',
    p_server_owned => '{created_by,created_at}'
);
