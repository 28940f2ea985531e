-- Who may say on whose behalf he acts, and who a database login is. All are for the owner of Rowcast's schemas.

create or replace function sync.trust(p_role regrole)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    insert into sync_internal.trusted_logins (login)
    select r.rolname from pg_catalog.pg_roles r where r.oid = p_role
    on conflict do nothing;
    -- What act_as needs before it takes on a role.
    execute format('grant usage on schema sync, sync_internal, auth to %s', p_role);
    execute format('grant execute on function sync.act_as(text, text, jsonb) to %s', p_role);
    perform sync_internal.install_identity();
    execute format('grant execute on function sync_internal.assume(text, text) to %s', p_role);
end
$$;

comment on function sync.trust(regrole) is 'Believes the request.jwt.claims of this login, as of the gateway''s.';

-- p_login: a database login that is one person. It also needs to be a member of p_role.
create or replace function sync.map_login(p_login text, p_user_id text, p_role text default 'authenticated')
returns void
language sql
volatile
parallel unsafe
security invoker
as $$
    insert into sync_internal.logins (login, user_id, role) values (p_login, p_user_id, p_role)
    on conflict (login) do update set user_id = excluded.user_id, role = excluded.role
$$;

comment on function sync.map_login(text, text, text) is 'Says which user a database login is.';

-- Fills a setting that an application's policies read from a claim, wherever Rowcast takes on an identity.
create or replace function sync.map_identity(p_setting text, p_claim text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    if p_setting !~ '^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+$' then
        raise exception using errcode = '22023', message = format('%s is no name of a custom setting', p_setting);
    end if;
    insert into sync_internal.identity_settings (setting, claim) values (p_setting, p_claim)
    on conflict (setting) do update set claim = excluded.claim;
    perform sync_internal.install_identity();
end
$$;

comment on function sync.map_identity(text, text) is 'Fills a further setting from a claim.';

-- The role a caller writes as: generated code exists for these three.
create or replace function sync_internal.variant()
returns text
language sql
stable
parallel safe
security invoker
as $$
    select case
        when current_user in ('authenticated', 'anon', 'service_role') then current_user::text
        else sync_internal.variant_of_login()
    end
$$;

comment on function sync_internal.variant() is 'Which generated code serves the caller.';

create or replace function sync_internal.variant_of_login()
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if pg_has_role(current_user, 'authenticated', 'usage') and not sync_internal.bypasses_rls() then
        return 'authenticated';
    elsif pg_has_role(current_user, 'service_role', 'usage') and not sync_internal.bypasses_rls() then
        return 'service_role';
    end if;
    perform sync_internal.refuse(403, 'forbidden', 'Say sync.act_as(user) first: this role has no identity');
end
$$;

comment on function sync_internal.variant_of_login() is 'Which generated code serves a login of another name.';
grant execute on function sync_internal.variant(), sync_internal.variant_of_login()
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

create or replace function sync_internal.bypasses_rls()
returns boolean
language sql
stable
parallel safe
security invoker
as $$
    select r.rolsuper or r.rolbypassrls from pg_catalog.pg_roles r where r.rolname = current_user
$$;

comment on function sync_internal.bypasses_rls() is 'Whether policies do not bind the caller.';
grant execute on function sync_internal.bypasses_rls()
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
