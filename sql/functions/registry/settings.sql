-- Limits and periods, and the oldest schema clients may have. They are kept in tables and written into a function as
-- constants, so that asking for one on the way of a write costs nothing.
create or replace function sync_internal.install_settings()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        $make$
        create or replace function sync_internal.setting(p_name text) returns bigint
        language sql immutable parallel safe security invoker as $body$ select case p_name %s end $body$
        $make$,
        (
            select string_agg(format('when %L then %s', s.name, s.value), ' ' order by s.name)
            from (
                select l.name, l.value from sync_internal.settings l
                union all
                select 'oldest_schema', t.oldest_schema from sync_internal.state t
            ) s
        )
    );
    comment on function sync_internal.setting(text) is 'The value of a limit or period.';
    grant execute on function sync_internal.setting(text)
    to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
end
$$;

comment on function sync_internal.install_settings() is 'Writes the settings into a function.';

create or replace function sync.configure(p_name text, p_value bigint)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    update sync_internal.settings s set value = p_value where s.name = p_name;
    if not found then
        raise exception using errcode = '22023', message = format('There is no setting %s', p_name),
            hint = 'See the table sync_internal.settings.';
    end if;
    perform sync_internal.install_settings();
end
$$;

comment on function sync.configure(text, bigint) is 'Changes a limit or period.';
