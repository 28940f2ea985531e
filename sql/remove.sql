-- Takes Rowcast out of this database, in one transaction: `rowcast remove`. Application tables and their rows
-- stay, and so do the cluster's roles, which other databases may use. Accounts go with it.
--
-- Refuses while something outside depends on it, naming what: dropping that is not ours to decide. Where policies
-- or defaults use auth.uid(), auth.jwt() or auth.role(), these stay and answer null from now on: nobody is asking.
do $remove$
declare
    v_relation regclass;
    v_schema regnamespace;
    v_function record;
    v_users text;
begin
    if to_regnamespace('sync_internal') is null then
        raise exception using errcode = '3F000', message = 'Rowcast is not installed in this database';
    end if;

    perform sync_internal.release_files();
    perform jobs.release_purges();
    for v_relation in select l.relation from sync_internal.live_tables() l (relation) loop
        perform sync.disable(v_relation);
    end loop;
    for v_relation in select m.relation from sync_internal.memberships m loop
        perform sync.drop_membership(v_relation);
    end loop;

    with
    schemas (oid) as (
        select n.oid from pg_namespace n where n.nspname in ('sync', 'sync_internal', 'accounts', 'jobs')
    ),
    objects (classid, oid) as (
        select 'pg_proc'::regclass, p.oid from pg_proc p join schemas s on s.oid = p.pronamespace
        union all
        select 'pg_class'::regclass, c.oid from pg_class c join schemas s on s.oid = c.relnamespace
        union all
        select 'pg_type'::regclass, t.oid from pg_type t join schemas s on s.oid = t.typnamespace
    ),
    users as (
        select distinct
            d.classid, d.objid, d.objsubid,
            coalesce(
                (select p.pronamespace from pg_proc p where d.classid = 'pg_proc'::regclass and p.oid = d.objid),
                (select t.typnamespace from pg_type t where d.classid = 'pg_type'::regclass and t.oid = d.objid),
                (
                    select n.connamespace from pg_constraint n
                    where d.classid = 'pg_constraint'::regclass and n.oid = d.objid
                ),
                (
                    select c.relnamespace from pg_class c
                    where c.oid = coalesce(
                        (
                            select a.adrelid from pg_attrdef a
                            where d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
                        ),
                        (
                            select p.polrelid from pg_policy p
                            where d.classid = 'pg_policy'::regclass and p.oid = d.objid
                        ),
                        (
                            select t.tgrelid from pg_trigger t
                            where d.classid = 'pg_trigger'::regclass and t.oid = d.objid
                        ),
                        (
                            select r.ev_class from pg_rewrite r
                            where d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
                        ),
                        d.objid
                    )
                )
            ) as home
        from pg_depend d
        join objects o on (d.refclassid, d.refobjid) = (o.classid, o.oid)
        where d.deptype = 'n'
    )
    select string_agg(pg_describe_object(u.classid, u.objid, u.objsubid), ', ')
    into v_users
    from users u
    where u.home not in (select s.oid from schemas s)
        -- The functions of auth are ours, and seen to below.
        and not exists (
            select from pg_proc p
            where u.classid = 'pg_proc'::regclass and p.oid = u.objid and p.proowner = 'rowcast_owner'::regrole
        );
    if v_users is not null then
        raise exception using errcode = '2BP01', message = 'Something of yours uses Rowcast: ' || v_users,
            hint = 'Drop or change that first.';
    end if;

    for v_function in
        select p.oid::regprocedure as signature, p.proname as name, p.prorettype::regtype as result
        from pg_proc p
        where p.pronamespace = 'auth'::regnamespace and p.proowner = 'rowcast_owner'::regrole
    loop
        begin
            execute format('drop function %s', v_function.signature);
        exception when dependent_objects_still_exist then
            execute format(
                'create or replace function auth.%I() returns %s language sql stable parallel safe '
                'security invoker as %L',
                v_function.name, v_function.result, format('select null::%s', v_function.result)
            );
        end;
    end loop;

    set local client_min_messages = warning;
    drop schema sync, sync_internal cascade;
    drop schema if exists accounts, jobs cascade;
    if (select n.nspowner = 'rowcast_owner'::regrole from pg_namespace n where n.nspname = 'auth') then
        begin
            drop schema auth;
        exception when dependent_objects_still_exist then
            null;
        end;
    end if;

    -- What sync.enable and the migration needed in schemas that are not ours.
    for v_schema in
        select n.oid
        from pg_namespace n
        where n.nspowner <> 'rowcast_owner'::regrole and pg_has_role(current_user, n.nspowner, 'usage')
            and exists (select from aclexplode(n.nspacl) a where a.grantee = 'rowcast_owner'::regrole)
    loop
        execute format('revoke all on schema %s from rowcast_owner', v_schema);
    end loop;

    alter default privileges for role rowcast_owner grant execute on functions to public;
    alter default privileges for role rowcast_owner grant usage on types to public;
    execute format('alter role rowcast_gateway in database %I reset all', current_database());
    execute format('alter role rowcast_worker in database %I reset all', current_database());
end
$remove$;
