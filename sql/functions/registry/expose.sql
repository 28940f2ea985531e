-- Makes an SQL function callable by clients, as the operation call. It runs with the caller's role and identity; its
-- own EXECUTE grants decide. Arguments are named on the wire in camelCase, without a leading p_. Said again with the
-- same name, it follows what has changed. Raises 42501 unless the caller owns the function, and 22023 with the fix as
-- hint where it cannot be called or a name is taken.
create or replace function sync.expose(p_function regprocedure, p_name text default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_function pg_catalog.pg_proc;
    v_strange oid;
    v_name text;
    v_former text;
    v_holder text;
begin
    select * into strict v_function from pg_catalog.pg_proc p where p.oid = p_function;
    v_name := coalesce(p_name, sync_internal.wire_name(v_function.proname));
    if not pg_has_role(sync_internal.caller(), v_function.proowner, 'usage') then
        raise exception using errcode = '42501', message = format('must be owner of function %s', p_function);
    elsif v_function.prokind <> 'f' or v_function.proretset or v_function.provariadic <> 0
        or v_function.proargmodes is not null or v_function.prorettype <> 'void'::regtype and exists (
            select from pg_catalog.pg_type t where t.oid = v_function.prorettype and t.typtype = 'p'
        )
        or v_function.pronargs > 0 and (v_function.proargnames is null or '' = any (v_function.proargnames)) then
        raise exception using errcode = '22023', message = format('%s cannot be called by clients', p_function),
            hint = 'It must be a function with named arguments, none of them OUT or VARIADIC, that returns one value.';
    elsif v_name !~ '^[a-z][A-Za-z0-9]{0,39}$' then
        raise exception using errcode = '22023', message = format('%s is no wire name', v_name),
            hint = 'Say p_name => ''...''.';
    end if;
    v_strange := (
        select min(t.type)
        from unnest(v_function.proargtypes::oid[]) t (type)
        cross join lateral sync_internal.type_kind(t.type) k
        where k.kind = 'other' and sync_internal.base_type(t.type) <> 'json'::regtype
    );
    if v_strange is not null then
        raise exception using errcode = '22023',
            message = format('%s takes a value of type %s, which clients cannot send', p_function, v_strange::regtype),
            hint = 'Take text or jsonb, and cast it inside.';
    end if;

    -- Two at once for one name or one function: the second sees what the first has written.
    lock table sync_internal.callables in share row exclusive mode;
    -- A function that is gone holds no name.
    delete from sync_internal.callables c where c.name = v_name and to_regprocedure(c.function) is null;
    v_former := (select c.name from sync_internal.callables c where c.function = p_function::text);
    v_holder := (select c.function from sync_internal.callables c where c.name = v_name);
    if v_former <> v_name then
        raise exception using errcode = '22023', message = format('%s is exposed as %s', p_function, v_former),
            hint = format('A function has one wire name: select sync.unexpose(%L); first.', v_former);
    elsif v_holder <> p_function::text then
        raise exception using errcode = '22023',
            message = format('The wire name %s belongs to %s', v_name, v_holder),
            hint = format('Say p_name => ''...'', or select sync.unexpose(%L); first.', v_name);
    end if;
    insert into sync_internal.callables (name, function) values (v_name, p_function::text) on conflict do nothing;
    perform sync_internal.generate_dispatch();
end
$$;

comment on function sync.expose(regprocedure, text) is 'Makes an SQL function callable by clients.';

-- Ends what sync.expose began; the function itself stays as it is. For its owner; where it was dropped meanwhile, for
-- every administrator. Raises 22023 where nothing is exposed under the name.
create or replace function sync.unexpose(p_name text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_function text;
    v_owner oid;
begin
    lock table sync_internal.callables in share row exclusive mode;
    v_function := (select c.function from sync_internal.callables c where c.name = p_name);
    if v_function is null then
        raise exception using errcode = '22023', message = format('No function is exposed as %s', p_name),
            hint = 'Say the wire name: select jsonb_object_keys(sync.describe() -> ''functions'');';
    end if;
    v_owner := (select p.proowner from pg_catalog.pg_proc p where p.oid = to_regprocedure(v_function));
    if not pg_has_role(sync_internal.caller(), v_owner, 'usage') then
        raise exception using errcode = '42501', message = format('must be owner of function %s', v_function);
    end if;
    delete from sync_internal.callables c where c.name = p_name;
    perform sync_internal.generate_dispatch();
end
$$;

comment on function sync.unexpose(text) is 'Ends what sync.expose began.';

-- What the generated call was made for: arguments with their types and defaults, and the result. The settings are
-- those that the text of a default depends on.
create or replace function sync_internal.function_signature(p_function regprocedure)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, YMD'
set intervalstyle = 'iso_8601'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
set quote_all_identifiers = off
set standard_conforming_strings = on
as $$
    select encode(sha256(convert_to(
        concat(pg_get_function_arguments(p_function), ' ', pg_get_function_result(p_function)), 'UTF8'
    )), 'hex')
$$;

comment on function sync_internal.function_signature(regprocedure) is 'A hash of what a generated call was made from.';

-- How an exposed function stands: null: as it was; changed: another result, other names or defaults; replaced: there
-- is only one of the same name with other types; gone.
create or replace function sync_internal.callable_state(p_function text, p_signature text)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when f.found is not null
            then case when sync_internal.function_signature(f.found) <> p_signature then 'changed' end
        when sync_internal.successor(p_function) is not null then 'replaced'
        else 'gone'
    end
    from (select to_regprocedure(p_function)) f (found)
$$;

comment on function sync_internal.callable_state(text, text) is 'How an exposed function stands.';

-- A function of the same schema and name, whatever its arguments.
create or replace function sync_internal.successor(p_function text)
returns text
language sql
stable
parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select min(p.oid::regprocedure::text)
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.prokind = 'f' and format('%I.%I', n.nspname, p.proname) = regexp_replace(p_function, '[(][^()]*[)]$', '')
$$;

comment on function sync_internal.successor(text) is 'A function of the same name.';

-- Before each call: PT400 where the function was dropped, PT503 with the fix where it is not what the generated call
-- was made for.
create or replace function sync_internal.check_callable(p_function text, p_signature text)
returns void
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    case sync_internal.callable_state(p_function, p_signature)
        when 'gone' then
            perform sync_internal.refuse(400, 'unknown_function', 'There is no such function');
        when 'replaced' then
            perform sync_internal.refuse(
                503, 'schema_changed', 'The function was made anew with other arguments: select sync.expose(function)'
            );
        when 'changed' then
            perform sync_internal.refuse(
                503, 'schema_changed', 'The function has changed since it was exposed: select sync.refresh()'
            );
        else null;
    end case;
end
$$;

comment on function sync_internal.check_callable(text, text) is 'Whether a function is what it was when exposed.';

grant execute on function
sync_internal.function_signature(regprocedure), sync_internal.callable_state(text, text),
sync_internal.successor(text), sync_internal.check_callable(text, text)
to anon, authenticated, service_role;
