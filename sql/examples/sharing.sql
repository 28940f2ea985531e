-- Example apps, sharing by e-mail address; and accounts of the demo users.
--
-- The rules:
--   * the owner of a workspace or notebook invites an address and takes that back
--   * who has that address, verified, reads the invitation, accepts or declines it
--   * who signs up with an invited address is a member from then on
--   * who is new has a name to begin with: the first part of his address
-- Nothing tells the owner whether an address has an account: an invitation waits until somebody
-- accepts it or signs up, and is mailed in any case.


-- What the policies ask, and what the triggers do -------------------------------------------------

create function app_private.my_email()
returns text
language sql
stable
parallel safe
set search_path = pg_catalog, pg_temp
begin atomic
    select case
        when auth.jwt() -> 'email_verified' = 'true'::jsonb then lower(auth.jwt() ->> 'email')
    end;
end;
comment on function app_private.my_email() is
'The address of the user, where his token says that it is verified.';
revoke all on function app_private.my_email() from public;
grant execute on function app_private.my_email() to authenticated, service_role;

-- Brings the address into the one form, so that an address is invited once and a policy can compare
-- it. Definer, since accounts is out of reach; it takes nothing but the row it fired for.
create function app_private.normal_invitation()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    new.email := accounts.normal_email(new.email);
    if tg_table_name = 'workspace_invitations' then
        -- Of one that is not there too: the policy refuses it as it does a hidden one.
        new.workspace_name := coalesce(
            (select w.name from public.workspaces as w where w.id = new.workspace_id), ''
        );
    else
        -- Of one that is not there too: the policy refuses it as it does a hidden one.
        new.notebook_name := coalesce(
            (select n.name from public.notebooks as n where n.id = new.notebook_id), ''
        );
    end if;
    return new;
end
$$;
comment on function app_private.normal_invitation() is
'Trigger: an invitation has its address in lower case, and the name of what it invites to.';
revoke all on function app_private.normal_invitation() from public;

-- Once the policy has let the invitation in. Definer, since accounts is out of reach.
create function app_private.mail_invitation()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_address constant text := accounts.invite(new.email, jsonb_build_object(
        'by', (select p.name from public.profiles as p where p.id = new.invited_by),
        'to', to_jsonb(new) ->> tg_argv[0]
    ));
begin
    return null;
end
$$;
comment on function app_private.mail_invitation() is 'Trigger: an invitation is mailed.';
revoke all on function app_private.mail_invitation() from public;


-- Invitations to workspaces -----------------------------------------------------------------------

create table public.workspace_invitations (
    id uuid not null default gen_random_uuid(),
    workspace_id uuid not null,
    email text not null,
    workspace_name text not null default '',
    invited_by uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    version integer not null default 1,
    constraint workspace_invitations_pkey primary key (id),
    constraint workspace_invitations_once unique (workspace_id, email),
    constraint workspace_invitations_to_workspace
    foreign key (workspace_id) references public.workspaces (id) on delete cascade,
    constraint workspace_invitations_email_length check (char_length(email) <= 254)
);
comment on table public.workspace_invitations is
'An address that was invited to a workspace and has neither accepted nor declined.';
comment on column public.workspace_invitations.workspace_name is
'What the workspace was called then: who is invited cannot read the workspace yet.';
comment on constraint workspace_invitations_once on public.workspace_invitations is
'An address is invited to a workspace once.';
comment on constraint workspace_invitations_email_length on public.workspace_invitations is
'An address has at most 254 characters.';
create index workspace_invitations_email on public.workspace_invitations (email);

create trigger workspace_invitations_normal
before insert on public.workspace_invitations
for each row execute function app_private.normal_invitation();

create trigger workspace_invitations_mail
after insert on public.workspace_invitations
for each row execute function app_private.mail_invitation('workspace_name');

alter table public.workspace_invitations enable row level security;

create policy workspace_invitations_select on public.workspace_invitations
for select to authenticated
using (
    workspace_id = any (array(select app_private.owned_workspace_ids()))
    or email = (select app_private.my_email())
);

create policy workspace_invitations_insert on public.workspace_invitations
for insert to authenticated
with check (workspace_id = any (array(select app_private.owned_workspace_ids())));

create policy workspace_invitations_update on public.workspace_invitations
for update to authenticated
using (false)
with check (false);

-- The owner takes it back; who is invited declines.
create policy workspace_invitations_delete on public.workspace_invitations
for delete to authenticated
using (
    workspace_id = any (array(select app_private.owned_workspace_ids()))
    or email = (select app_private.my_email())
);

create policy workspace_invitations_service on public.workspace_invitations
for all to service_role
using (true)
with check (true);

revoke all on public.workspace_invitations from public, anon, authenticated, service_role;
grant select, delete on public.workspace_invitations to authenticated, service_role;
grant insert (id, workspace_id, email)
on public.workspace_invitations to authenticated, service_role;
grant insert (invited_by) on public.workspace_invitations to service_role;

-- Puts a user on the list of a workspace.
create function app_private.join_workspace(p_workspace uuid, p_user uuid)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
begin atomic
    update public.workspaces as p
    set member_ids = p.member_ids || to_jsonb(p_user::text)
    where p.id = p_workspace and p.owner_id <> p_user and not p.member_ids ? p_user::text;
end;
comment on function app_private.join_workspace(uuid, uuid) is
'Puts a user on the list of a workspace.';
revoke all on function app_private.join_workspace(uuid, uuid) from public;

-- Definer, since who is invited may not change the workspace. The invitation to the caller's own
-- verified address is his right to join.
create function app_private.accept_workspace(p_id uuid)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_workspace uuid;
begin
    delete from public.workspace_invitations as i
    where i.id = p_id and i.email = app_private.my_email()
    returning i.workspace_id into v_workspace;
    if v_workspace is null or auth.uid() is null then
        raise exception using
            errcode = 'PT403',
            message = 'No such invitation, or it is not yours',
            detail = '{"code": "forbidden"}';
    end if;
    perform app_private.join_workspace(v_workspace, auth.uid());
    return v_workspace;
end
$$;
comment on function app_private.accept_workspace(uuid) is
'Accepts an invitation to the caller''s verified address.';
revoke all on function app_private.accept_workspace(uuid) from public;
grant execute on function app_private.accept_workspace(uuid) to authenticated;

create function public.accept_workspace_invitation(p_id uuid)
returns uuid
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
    select app_private.accept_workspace(p_id);
end;
comment on function public.accept_workspace_invitation(uuid) is
'Accepts an invitation to a workspace and returns its id.';
revoke all on function public.accept_workspace_invitation(uuid) from public;
grant execute on function public.accept_workspace_invitation(uuid) to authenticated;

select sync.enable(
    'public.workspace_invitations',
    p_topics => '{workspace_id}',
    p_server_owned => '{workspace_name,invited_by,created_at}',
    p_hard_delete => true
);
select sync.expose('public.accept_workspace_invitation(uuid)');

-- Invitations to notebooks ------------------------------------------------------------------------

create table public.notebook_invitations (
    id uuid not null default gen_random_uuid(),
    notebook_id uuid not null,
    email text not null,
    notebook_name text not null default '',
    invited_by uuid not null default auth.uid(),
    created_at timestamptz not null default now(),
    version integer not null default 1,
    constraint notebook_invitations_pkey primary key (id),
    constraint notebook_invitations_once unique (notebook_id, email),
    constraint notebook_invitations_to_notebook
    foreign key (notebook_id) references public.notebooks (id) on delete cascade,
    constraint notebook_invitations_email_length check (char_length(email) <= 254)
);
comment on table public.notebook_invitations is
'An address that was invited to a notebook and has neither accepted nor declined.';
comment on column public.notebook_invitations.notebook_name is
'What the notebook was called then: who is invited cannot read the notebook yet.';
comment on constraint notebook_invitations_once on public.notebook_invitations is
'An address is invited to a notebook once.';
comment on constraint notebook_invitations_email_length on public.notebook_invitations is
'An address has at most 254 characters.';
create index notebook_invitations_email on public.notebook_invitations (email);

create trigger notebook_invitations_normal
before insert on public.notebook_invitations
for each row execute function app_private.normal_invitation();

create trigger notebook_invitations_mail
after insert on public.notebook_invitations
for each row execute function app_private.mail_invitation('notebook_name');

alter table public.notebook_invitations enable row level security;

create policy notebook_invitations_select on public.notebook_invitations
for select to authenticated
using (
    notebook_id = any (array(select app_private.owned_notebook_ids()))
    or email = (select app_private.my_email())
);

create policy notebook_invitations_insert on public.notebook_invitations
for insert to authenticated
with check (notebook_id = any (array(select app_private.owned_notebook_ids())));

create policy notebook_invitations_update on public.notebook_invitations
for update to authenticated
using (false)
with check (false);

-- The owner takes it back; who is invited declines.
create policy notebook_invitations_delete on public.notebook_invitations
for delete to authenticated
using (
    notebook_id = any (array(select app_private.owned_notebook_ids()))
    or email = (select app_private.my_email())
);

create policy notebook_invitations_service on public.notebook_invitations
for all to service_role
using (true)
with check (true);

revoke all on public.notebook_invitations from public, anon, authenticated, service_role;
grant select, delete on public.notebook_invitations to authenticated, service_role;
grant insert (id, notebook_id, email)
on public.notebook_invitations to authenticated, service_role;
grant insert (invited_by) on public.notebook_invitations to service_role;

-- Puts a user on the list of a notebook.
create function app_private.join_notebook(p_notebook uuid, p_user uuid)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
begin atomic
    update public.notebooks as p
    set shared_with = p.shared_with || to_jsonb(p_user::text)
    where p.id = p_notebook and p.owner_id <> p_user and not p.shared_with ? p_user::text;
end;
comment on function app_private.join_notebook(uuid, uuid) is
'Puts a user on the list of a notebook.';
revoke all on function app_private.join_notebook(uuid, uuid) from public;

-- Definer, since who is invited may not change the notebook. The invitation to the caller's own
-- verified address is his right to join.
create function app_private.accept_notebook(p_id uuid)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_notebook uuid;
begin
    delete from public.notebook_invitations as i
    where i.id = p_id and i.email = app_private.my_email()
    returning i.notebook_id into v_notebook;
    if v_notebook is null or auth.uid() is null then
        raise exception using
            errcode = 'PT403',
            message = 'No such invitation, or it is not yours',
            detail = '{"code": "forbidden"}';
    end if;
    perform app_private.join_notebook(v_notebook, auth.uid());
    return v_notebook;
end
$$;
comment on function app_private.accept_notebook(uuid) is
'Accepts an invitation to the caller''s verified address.';
revoke all on function app_private.accept_notebook(uuid) from public;
grant execute on function app_private.accept_notebook(uuid) to authenticated;

create function public.accept_notebook_invitation(p_id uuid)
returns uuid
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
begin atomic
    select app_private.accept_notebook(p_id);
end;
comment on function public.accept_notebook_invitation(uuid) is
'Accepts an invitation to a notebook and returns its id.';
revoke all on function public.accept_notebook_invitation(uuid) from public;
grant execute on function public.accept_notebook_invitation(uuid) to authenticated;

select sync.enable(
    'public.notebook_invitations',
    p_topics => '{notebook_id}',
    p_server_owned => '{notebook_name,invited_by,created_at}',
    p_hard_delete => true
);
select sync.expose('public.accept_notebook_invitation(uuid)');


-- Who signs up with an invited address ------------------------------------------------------------

-- In the transaction that verifies the address. Definer, for the tables of the app.
create function app_private.join_invited()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid;
begin
    for v_id in
        delete from public.workspace_invitations as i
        where i.email = new.email
        returning i.workspace_id
    loop
        perform app_private.join_workspace(v_id, new.id);
    end loop;
    for v_id in
        delete from public.notebook_invitations as i
        where i.email = new.email
        returning i.notebook_id
    loop
        perform app_private.join_notebook(v_id, new.id);
    end loop;
    return null;
end
$$;
comment on function app_private.join_invited() is
'Trigger: who comes to have an invited address is a member of what it was invited to.';
revoke all on function app_private.join_invited() from public;

create trigger join_invited_new
after insert on accounts.users
for each row when (new.email is not null)
execute function app_private.join_invited();

create trigger join_invited
after update on accounts.users
for each row when (new.email is distinct from old.email and new.email is not null)
execute function app_private.join_invited();


-- What a new user is called -----------------------------------------------------------------------

-- By the first part of his address, until he says otherwise. Definer, since the row is made for a
-- user who is not there yet; it takes nothing but the row it fired for.
create function app_private.first_profile()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_colours constant text[] := '{#6b4df0,#0b8256,#c44d1c,#2766c4,#a83279,#7a6a12,#0f7c86}';
    v_name constant text := coalesce(nullif(left(split_part(new.email, '@', 1), 80), ''), 'Guest');
begin
    insert into public.profiles as p (id, name, colour)
    values (
        new.id, v_name, v_colours[1 + abs(hashtext(new.id::text)::bigint) % cardinality(v_colours)]
    )
    on conflict (id) do update set name = v_name
    where p.name = 'Guest';
    return null;
end
$$;
comment on function app_private.first_profile() is
'Trigger: who is new has a name; a guest who now has an address is called after it.';
revoke all on function app_private.first_profile() from public;

create trigger first_profile_new
after insert on accounts.users
for each row execute function app_private.first_profile();

create trigger first_profile
after update on accounts.users
for each row when (new.email is distinct from old.email and new.email is not null)
execute function app_private.first_profile();


-- The demo users as accounts: password "rowcast demo" ---------------------------------------------
-- They sign in only where the development sign-in is turned on.

insert into accounts.users (id, email, password_hash, is_demo)
select
    u.user_id,
    u.name || '@example.com',
    h.hash,
    true
from demo_auth.users as u
inner join (
    values
    ('alice', '$argon2id$v=19$m=65536,t=3,p=4$SkiGOh6yTYx4h17ozYwiVw$ShFE0YcP8fO9VntvS0xOSOxY4yLxKFpWuNCG/LA6p9Y'),
    ('bob', '$argon2id$v=19$m=65536,t=3,p=4$Xyo12aTRN0tzN58Hl1TUIA$gZooBKaWFK6hr5QDDSv6XoFeo6kk/i0VaaWLQ5Jlu2E'),
    ('carol', '$argon2id$v=19$m=65536,t=3,p=4$h3PC6Q2ysQmW7F7GmaaAyA$gtKhqPR4xEBQLRaOdFesmRRJYeglRMvQRqTPyxhnwdI')
) as h (name, hash) on h.name = u.name;
