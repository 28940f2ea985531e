-- Cluster roles of Rowcast. Idempotent; needs CREATEROLE, not superuser.
-- What each may do is said by grants elsewhere; here is only who exists and who may become whom.

do $$
declare
    v_role text;
    v_version constant int := current_setting('server_version_num')::int;
begin
    foreach v_role in array array['rowcast_owner', 'anon', 'authenticated', 'service_role'] loop
        if not exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
            execute format('create role %I nologin noinherit', v_role);
        end if;
    end loop;

    foreach v_role in array array['rowcast_gateway', 'rowcast_worker'] loop
        if not exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
            execute format('create role %I login noinherit', v_role);
        end if;
        -- The gateway may become these two and nothing else: an injected role change reaches nothing strong.
        if v_version >= 160000 then
            execute format('grant anon, authenticated to %I with inherit false, set true', v_role);
        else
            execute format('grant anon, authenticated to %I', v_role);
        end if;
        -- Timeouts sit on login roles: they are ignored after a role switch. Milliseconds unless a unit is given.
        execute format('alter role %I in database %I set statement_timeout = %L', v_role, current_database(), '5s');
        execute format('alter role %I in database %I set lock_timeout = %L', v_role, current_database(), '2s');
        execute format(
            'alter role %I in database %I set idle_in_transaction_session_timeout = %L',
            v_role, current_database(), '30s'
        );
        execute format('alter role %I in database %I set search_path = %L', v_role, current_database(), '');
        execute format(
            'alter role %I in database %I set standard_conforming_strings = on', v_role, current_database()
        );
        -- Whose machine went without a word is missed after half a minute, and not after the two hours that systems
        -- take by default: until then its sessions keep their places and their locks. Not on Unix sockets.
        execute format('alter role %I in database %I set tcp_keepalives_idle = 10', v_role, current_database());
        execute format('alter role %I in database %I set tcp_keepalives_interval = 5', v_role, current_database());
        execute format('alter role %I in database %I set tcp_keepalives_count = 4', v_role, current_database());
        execute format('alter role %I in database %I set tcp_user_timeout = %L', v_role, current_database(), '30s');
        -- Our statements look dear to the planner and are short: compiling them made a resume cost 140 ms, not 20.
        execute format('alter role %I in database %I set jit = off', v_role, current_database());
    end loop;

    -- Whoever migrates must be able to give objects to the owner role (a superuser can anyway).
    if not pg_catalog.pg_has_role(current_user, 'rowcast_owner', 'member') then
        execute format('grant rowcast_owner to %I', current_user);
    end if;
end
$$;
