-- Ends every migration, in its transaction: what no file defines any more is dropped, ownership and grants
-- are put right, constants and generated code are written anew. p_version: the version of Rowcast being
-- installed.
create or replace function sync_internal.after_migrate(p_version text default '')
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_function record;
begin
    for v_function in
        select p.oid::regprocedure as signature, p.proowner,
            p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0) as for_all
        from pg_catalog.pg_proc p
        where p.pronamespace in (
            'sync'::regnamespace, 'sync_internal'::regnamespace, 'accounts'::regnamespace, 'jobs'::regnamespace
        )
    loop
        if v_function.proowner <> 'rowcast_owner'::regrole then
            execute format('alter function %s owner to rowcast_owner', v_function.signature);
        end if;
        -- Only where there is something to revoke: it would mark the function as written by this transaction.
        if v_function.for_all then
            execute format('revoke execute on function %s from public', v_function.signature);
        end if;
    end loop;

    -- A schema auth that is not ours, and lacks a function policies may call.
    if (select n.nspowner <> 'rowcast_owner'::regrole from pg_catalog.pg_namespace n where n.nspname = 'auth')
        and not has_schema_privilege('rowcast_owner', 'auth', 'create')
        and (
            select count(*) from pg_catalog.pg_proc p
            where p.pronamespace = 'auth'::regnamespace and p.proname in ('uid', 'jwt', 'role') and p.pronargs = 0
        ) < 3 then
        grant usage, create on schema auth to rowcast_owner;
    end if;

    perform sync_internal.finish_migration(p_version);

    -- A function that this transaction has not written is an overload or a name left behind. Only where the files were
    -- applied in this transaction, which this function's own row tells.
    for v_function in
        select p.oid::regprocedure as signature
        from pg_catalog.pg_proc p
        where p.pronamespace in (
            'sync'::regnamespace, 'sync_internal'::regnamespace, 'accounts'::regnamespace, 'jobs'::regnamespace
        )
            and p.xmin <> pg_current_xact_id()::xid
            and not exists (select from pg_catalog.pg_trigger t where t.tgfoid = p.oid)
            and exists (
                select from pg_catalog.pg_proc s
                where s.oid = 'sync_internal.after_migrate(text)'::regprocedure and s.xmin = pg_current_xact_id()::xid
            )
    loop
        execute format('drop function %s', v_function.signature);
    end loop;

    for v_function in select t.relation from sync_internal.live_tables() t (relation) loop
        -- Triggers belong to the tables' owners.
        if pg_has_role(
            current_user, (select c.relowner from pg_catalog.pg_class c where c.oid = v_function.relation), 'usage'
        ) then
            perform sync_internal.create_triggers(v_function.relation);
        end if;
    end loop;
    perform sync_internal.create_watch_triggers();
end
$$;

comment on function sync_internal.after_migrate(text) is 'Ends every migration.';

create or replace function sync_internal.live_tables()
returns setof regclass
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.relation from sync_internal.tables t order by t.name
$$;

comment on function sync_internal.live_tables() is 'The live tables. Definer: the registry is private.';

create or replace function sync_internal.finish_migration(p_version text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.install_settings();
    perform sync_internal.install_identity();
    perform jobs.install_policies();
    perform sync_internal.refresh_code(null);
    perform sync_internal.settle_epoch();
    update sync_internal.state set schema_version = p_version;
end
$$;

comment on function sync_internal.finish_migration(text)
is 'The part of a migration that writes Rowcast''s own tables.';
