-- Example app, names: what people are called and which colour stands for them.
--
-- The rules:
--   * a profile is read by its owner and by those he shares a workspace or a notebook with
--   * its owner alone changes it, and makes it (his id is the user's)
-- Runs after seed.sql, whose users get a profile here.
--
-- Who shares something is read from the lists in workspaces and notebooks, never from the rows of
-- other people in workspace_members: `sync.membership` says that such a row concerns nobody but the
-- user it names, and is believed. Here it would concern everybody in the workspace.


-- Table -------------------------------------------------------------------------------------------

create table public.profiles (
    id uuid not null default auth.uid(),
    name text not null,
    colour text not null default '#6b7280',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1,
    constraint profiles_pkey primary key (id),
    constraint profiles_name_length check (char_length(name) between 1 and 80),
    constraint profiles_colour_is_hex check (colour ~ '^#[0-9a-f]{6}$')
);
comment on table public.profiles is 'What a user is called, under the id of the user.';
comment on column public.profiles.colour is 'Stands for the user beside his initials: `#3f5bd9`.';
comment on constraint profiles_name_length on public.profiles is
'A name has 1 to 80 characters.';
comment on constraint profiles_colour_is_hex on public.profiles is
'A colour is # and six hexadecimal digits in lower case.';


-- What the policies ask ---------------------------------------------------------------------------

-- Owners and members of whatever the user himself belongs to.
create function app_private.my_people_ids()
returns setof uuid
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select w.owner_id
    from public.workspaces as w
    where w.id in (
        select m.workspace_id
        from public.workspace_members as m
        where m.user_id = (select auth.uid())
    )
    union
    select e.user_id::uuid
    from public.workspaces as w
    cross join lateral jsonb_array_elements_text(w.member_ids) as e (user_id)
    where w.id in (
        select m.workspace_id
        from public.workspace_members as m
        where m.user_id = (select auth.uid())
    )
    union
    select n.owner_id
    from public.notebooks as n
    where n.id in (
        select m.notebook_id
        from public.notebook_members as m
        where m.user_id = (select auth.uid())
    )
    union
    select e.user_id::uuid
    from public.notebooks as n
    cross join lateral jsonb_array_elements_text(n.shared_with) as e (user_id)
    where n.id in (
        select m.notebook_id
        from public.notebook_members as m
        where m.user_id = (select auth.uid())
    );
end;
comment on function app_private.my_people_ids() is
'Those with whom the user shares a workspace or a notebook.';
revoke all on function app_private.my_people_ids() from public;
grant execute on function app_private.my_people_ids() to authenticated, service_role;


-- Policies ----------------------------------------------------------------------------------------

alter table public.profiles enable row level security;

create policy profiles_select on public.profiles
for select to authenticated
using (
    id = (select auth.uid())
    or id = any (array(select app_private.my_people_ids()))
);

create policy profiles_insert on public.profiles
for insert to authenticated
with check (id = (select auth.uid()));

create policy profiles_update on public.profiles
for update to authenticated
using (id = (select auth.uid()))
with check (id = (select auth.uid()));

-- Others would be left with a nameless member: a profile goes with its user.
create policy profiles_delete on public.profiles
for delete to authenticated
using (false);

create policy profiles_service on public.profiles
for all to service_role
using (true)
with check (true);

revoke all on public.profiles from public, anon, authenticated, service_role;
grant select on public.profiles to authenticated, service_role;
grant
insert (id, name, colour, updated_at),
update (name, colour, updated_at)
on public.profiles to authenticated, service_role;
grant delete on public.profiles to service_role;


-- Finding somebody to share with: of the demo alone -----------------------------------------------
-- An app of yours asks its own directory, or sends an invitation by mail.

-- Definer, since no role that acts for a user can look into demo_auth. It takes no argument, and who
-- may call it has no way to: usage of the schema is granted to nobody.
create function app_private.demo_people()
returns table (sign_in_name text, user_id uuid, name text)
language sql
stable
security definer
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select
        u.name,
        u.user_id,
        coalesce(p.name, u.display_name)
    from demo_auth.users as u
    left join public.profiles as p on p.id = u.user_id;
end;
comment on function app_private.demo_people() is 'The demo users, and what they are called.';
revoke all on function app_private.demo_people() from public;
grant execute on function app_private.demo_people() to authenticated, service_role;

-- Returns {"id", "name"} of the demo user who signs in by exactly this name; null where there is
-- none, which is no refusal. The whole name or nothing: it lists nobody.
create function public.find_person(p_name text)
returns jsonb
language sql
stable
security invoker
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select jsonb_build_object('id', d.user_id, 'name', d.name)
    from app_private.demo_people() as d
    where d.sign_in_name = p_name;
end;
comment on function public.find_person(text) is
'Id and name of the demo user who signs in by this name, to share something with; null: nobody.';
revoke all on function public.find_person(text) from public;
grant execute on function public.find_person(text) to authenticated, service_role;


-- Live --------------------------------------------------------------------------------------------

select sync.enable(
    'public.profiles',
    p_topics => '{}',
    p_touch => 'updated_at',
    p_server_owned => '{created_at}'
);
select sync.expose('public.find_person(text)');


-- The demo users ----------------------------------------------------------------------------------

insert into public.profiles (id, name, colour)
select u.user_id, u.display_name, c.colour
from demo_auth.users as u
inner join (values ('alice', '#6b4df0'), ('bob', '#0b8256'), ('carol', '#c44d1c')) as c (name, colour)
    on c.name = u.name;
