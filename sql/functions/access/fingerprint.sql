-- A text that changes when who can see what may have changed without any row having changed: policies, rights on tables
-- and columns, owners, row level security, triggers, partitions, views, functions, roles and their members, enum labels,
-- and what Rowcast was told. There are no event triggers without superuser, so the relay looks once a second. Rows of
-- the catalogue are counted and the transactions that wrote them added up, so that there and back is noticed too.
--
-- It covers the live tables and what was recorded of their closure when their code was made; a table whose policies lead
-- beyond that is not cacheable until then. PL/pgSQL, since its plans are kept.
create or replace function sync_internal.fingerprint()
returns text
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_relations oid[];
    v_functions oid[];
    v_opaque boolean;
    v_parts text[] := '{}';
    v_part text;
begin
    v_relations := array(
        with recursive family (oid) as (
            select t.relation::oid from sync_internal.tables t
            union
            select r.relation::oid from sync_internal.reads r
            union
            select i.inhrelid from family f join pg_inherits i on i.inhparent = f.oid
        )
        select f.oid from family f
    );
    select array_agg(distinct c.function::oid) into v_functions from sync_internal.policy_calls c;

    select concat_ws('.', count(*), sum(c.xmin::text::bigint)) into v_part
    from pg_class c where c.oid = any (v_relations);
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(a.xmin::text::bigint)) into v_part
    from pg_attribute a where a.attrelid = any (v_relations) and a.attnum > 0;
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(p.xmin::text::bigint)) into v_part from pg_policy p;
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(t.xmin::text::bigint)) into v_part
    from pg_trigger t where t.tgrelid = any (v_relations) and not t.tgisinternal;
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(w.xmin::text::bigint)) into v_part
    from pg_rewrite w where w.ev_class = any (v_relations);
    v_parts := v_parts || v_part;
    -- One that is not recorded may call any other.
    v_opaque := exists (
        select from pg_proc p
        where p.oid = any (v_functions) and p.prosqlbody is null and p.proowner <> 'rowcast_owner'::regrole
    );
    select concat_ws('.', count(*), sum(p.xmin::text::bigint)) into v_part
    from pg_proc p
    where p.oid = any (v_functions)
        or v_opaque and p.oid >= 16384 and p.pronamespace <> 'sync_internal'::regnamespace;
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(e.xmin::text::bigint)) into v_part from pg_enum e;
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(n.xmin::text::bigint)) into v_part
    from pg_namespace n where n.nspname !~ '^pg_(temp|toast_temp)_';
    v_parts := v_parts || v_part;
    select concat_ws('.', count(*), sum(m.xmin::text::bigint)) into v_part
    from pg_auth_members m;
    v_parts := v_parts || v_part;
    -- As they are, since their catalogue may be out of reach.
    select coalesce(sum(hashtextextended(concat_ws(' ', r.oid, r.rolsuper, r.rolbypassrls, r.rolinherit), 0)), 0)::text
    into v_part
    from pg_roles r
    where r.rolname = any (sync_internal.served_roles())
        or r.oid in (select c.relowner from pg_class c where c.oid = any (v_relations))
        or r.oid in (select p.proowner from pg_proc p where p.oid = any (v_functions))
        -- Through whom others inherit.
        or r.oid in (select m.member from pg_auth_members m) and r.oid in (select m.roleid from pg_auth_members m);
    v_parts := v_parts || v_part;
    select concat_ws(
        '.', (select count(*) from sync_internal.memberships),
        (select sum(t.xmin::text::bigint) from sync_internal.tables t),
        (select sum(i.xmin::text::bigint) from sync_internal.identity_settings i),
        (select sum(w.xmin::text::bigint) from sync_internal.watches w)
    ) into v_part;
    return array_to_string(v_parts || v_part, '-');
end
$$;

comment on function sync_internal.fingerprint() is 'Changes when who can see what may have changed.';
revoke execute on function sync_internal.fingerprint() from anon, authenticated, service_role;
grant execute on function sync_internal.fingerprint() to rowcast_gateway;
