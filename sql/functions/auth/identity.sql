-- Who is asking. A setting is no identity, since any SQL caller can set it: the claims are believed only where the
-- login is the gateway, the worker, a login named by sync.trust, or a superuser; every other login has the identity
-- that sync_internal.logins gives it.

-- The claims of a login that is not trusted, or is a superuser. Definer: callers have no right on the table.
create or replace function sync_internal.login_claims()
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user)
            then nullif(current_setting('request.jwt.claims', true), '')::jsonb
        else (
            select jsonb_build_object('sub', l.user_id, 'role', l.role)
            from sync_internal.logins l
            where l.login = session_user
        )
    end
$$;

comment on function sync_internal.login_claims() is 'The claims of a login whose settings are not believed.';
grant execute on function sync_internal.login_claims()
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

-- Writes the functions that hold the list of trusted logins as a constant: reading a table in every policy would cost
-- four times as much. Their bodies are "begin atomic": operators are bound here, not by the search_path of a caller who
-- may have put his own in front. auth.uid, auth.jwt and auth.role are made only where nobody else has made them.
create or replace function sync_internal.install_identity()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_trusted constant text := (
        select string_agg(quote_literal(l.login), ', ' order by l.login)
        from (
            select 'rowcast_gateway'
            union select 'rowcast_worker'
            union select t.login from sync_internal.trusted_logins t
        ) l (login)
    );
    v_settings constant text := (
        select coalesce(string_agg(
            format(
                E'            v_set := set_config(%L, coalesce(p_claims::jsonb ->> %L, ''''), true);\n',
                s.setting, s.claim
            ),
            '' order by s.setting
        ), '')
        from sync_internal.identity_settings s
    );
    v_function record;
begin
    execute format(
        $make$
        create or replace function sync_internal.claims() returns jsonb
        language sql stable parallel safe security invoker
        begin atomic
            select case
                when session_user in (%s) then nullif(current_setting('request.jwt.claims', true), '')::jsonb
                else sync_internal.login_claims()
            end;
        end
        $make$,
        v_trusted
    );
    create or replace function sync_internal.subject() returns text
    language sql stable parallel safe security invoker
    begin atomic
        select sync_internal.claims() ->> 'sub';
    end;
    comment on function sync_internal.subject() is 'The id of the user who is asking, as text.';
    comment on function sync_internal.claims() is 'The claims of whoever is asking; null for nobody.';

    -- Role and claims for the rest of the transaction, both at once. Invoker: a definer cannot change the role.
    execute format(
        $make$
        create or replace function sync_internal.assume(p_role text, p_claims text) returns boolean
        language plpgsql volatile parallel unsafe security invoker as $body$
        declare
            v_set text;
        begin
            v_set := set_config('role', p_role, true);
            v_set := set_config('request.jwt.claims', coalesce(p_claims, ''), true);
%s            return true;
        end
        $body$
        $make$,
        v_settings
    );
    comment on function sync_internal.assume(text, text)
    is 'Takes on a role and its claims until the end of the transaction.';

    for v_function in
        select *
        from (values
            ('uid', 'uuid', 'The id of the user who is asking; null for nobody, or where it is no uuid.', $body$
                -- As sync_internal.is_any_uuid says it, which would not be inlined here: the claims are read twice.
                select case
                    when sync_internal.subject() like '________-____-____-____-____________' then
                        substring(
                            sync_internal.subject()
                            from '(?i)^[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$'
                        )::uuid
                end
            $body$),
            ('jwt', 'jsonb', 'The claims of whoever is asking; null for nobody.', 'select sync_internal.claims()'),
            ('role', 'text', 'The role claim of whoever is asking.',
                $body$select sync_internal.claims() ->> 'role'$body$)
        ) f (name, result, comment, body)
    loop
        continue when exists (
            select from pg_catalog.pg_proc p
            where p.pronamespace = 'auth'::regnamespace and p.proname = v_function.name and p.pronargs = 0
                and p.proowner <> 'rowcast_owner'::regrole
        );
        execute format(
            'create or replace function auth.%I() returns %s language sql stable parallel safe '
            'security invoker begin atomic %s; end',
            v_function.name, v_function.result, v_function.body
        );
        execute format('comment on function auth.%I() is %L', v_function.name, v_function.comment);
        execute format(
            'grant execute on function auth.%I() to anon, authenticated, service_role, rowcast_gateway, rowcast_worker',
            v_function.name
        );
    end loop;
    if exists (
        select from pg_catalog.pg_namespace n
        where n.nspname = 'auth' and n.nspowner = 'rowcast_owner'::regrole
    ) then
        grant usage on schema auth to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
    end if;

    grant execute on function sync_internal.claims(), sync_internal.subject(), sync_internal.assume(text, text)
    to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
end
$$;

comment on function sync_internal.install_identity() is 'Writes the functions that say who is asking.';

-- The name receipts are kept under: the user, or what stands in for one.
create or replace function sync_internal.author()
returns text
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(sync_internal.claims() ->> 'sub', sync_internal.author_without_sub())
$$;

-- A function of its own that is not inlined: asked for rarely.
create or replace function sync_internal.author_without_sub()
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    return coalesce(
        'role:' || (sync_internal.claims() ->> 'role'),
        case
            when session_user in ('rowcast_gateway', 'rowcast_worker') then 'role:anon'
            else 'login:' || session_user
        end
    );
end
$$;

comment on function sync_internal.author_without_sub() is 'The name of receipts where there is no user.';

comment on function sync_internal.author() is 'The name receipts are kept under.';
grant execute on function sync_internal.author(), sync_internal.author_without_sub()
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
