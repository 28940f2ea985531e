-- Says that writers need not mind these triggers of a live table: they leave no settings behind, take no lock another
-- user waits for, and change no row of a live table. Such as one that enqueues a job or writes a log. Without any other
-- triggers, transactions share their commits, and nobody looks whether a row stands differently after its triggers.
--
-- For the owner of the table. Doing it again replaces the former list; '{}' trusts none. Raises 42501 unless the caller
-- owns the table, and 22023 with the fix as hint where it is not live or has no such trigger.
create or replace function sync.trust_triggers(p_table regclass, p_triggers text[])
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_unknown text;
begin
    perform sync_internal.must_own(p_table);
    v_unknown := (
        select min(n.name)
        from unnest(p_triggers) n (name)
        where not exists (
            select from pg_catalog.pg_trigger g
            where g.tgrelid = p_table and g.tgname = n.name and not g.tgisinternal
        )
    );
    if v_unknown is not null then
        raise exception using errcode = '22023', message = format('%s has no trigger %s', p_table, v_unknown),
            hint = format('Its triggers: select tgname from pg_trigger where tgrelid = %L::regclass;', p_table);
    end if;
    update sync_internal.tables t set trusted_triggers = coalesce(p_triggers, '{}') where t.relation = p_table;
    if not found then
        raise exception using errcode = '22023', message = format('%s is not live', p_table),
            hint = format('Make it live first: select sync.enable(%L);', p_table);
    end if;
    perform sync_internal.refresh_code(p_table);
end
$$;

comment on function sync.trust_triggers(regclass, text[])
is 'Says that writers need not mind these triggers of a live table.';
