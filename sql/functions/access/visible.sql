-- "May this user see these rows?" is asked of PostgreSQL with his role and claims; nobody guesses.

-- The readable rows among given ids, as the current role: a table's wire name and its ids in, rows out. record is null
-- without p_records: reading it costs more than all the rest.
create or replace function sync_internal.rows_of(p_table text, p_ids text[], p_variant text, p_records boolean)
returns table (id text, version bigint, class text, record text)
language plpgsql
stable
parallel unsafe
security invoker
as $$
begin
    case p_variant
        when 'authenticated' then return query select * from sync_internal.rows_authenticated(p_table, p_ids, p_records);
        when 'service_role' then return query select * from sync_internal.rows_service_role(p_table, p_ids, p_records);
        else return query select * from sync_internal.rows_anon(p_table, p_ids, p_records);
    end case;
end
$$;

comment on function sync_internal.rows_of(text, text[], text, boolean) is 'The readable rows among given ids.';
grant execute on function sync_internal.rows_of(text, text[], text, boolean) to anon, authenticated, service_role;

-- The well-formed ids among those given, so that one that is not well formed is simply not there.
create or replace function sync_internal.well_formed(p_table text, p_ids jsonb)
returns text[]
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(array_agg(distinct i.id), '{}')
    from jsonb_array_elements_text(p_ids) i (id)
    where case sync_internal.id_type(p_table)
        when 'uuid' then i.id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        when 'bigint' then case
            when i.id ~ '^(0|-?[1-9][0-9]{0,18})$'
                then i.id::numeric between -9223372036854775808 and 9223372036854775807
        end
        when 'text' then octet_length(i.id) between 1 and 200
    end
$$;

comment on function sync_internal.well_formed(text, jsonb) is 'The well-formed ids among those given.';
grant execute on function sync_internal.well_formed(text, jsonb) to anon, authenticated, service_role, rowcast_gateway;

-- What of the changed records a user may read now. p_refs: {"tasks": ["id", ...]}. Gives
-- {"tasks": {"<id>": {"class", "version"}}, "hidden": {"tasks": ["column", ...]}}; with p_records each entry carries
-- the record as well. class: to compare with the change's own, for a change made while the row was elsewhere must not
-- be shown. hidden: columns the role may not select, to be cut from patches.
create or replace function sync.gateway_visible(p_claims text, p_refs jsonb, p_records boolean default false)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_role text := sync_internal.claimed_role(p_claims);
    v_answer jsonb := '{}';
    v_table record;
    v_hidden jsonb;
begin
    -- The registry is the gateway's to read; everything after it is the user's.
    v_hidden := sync_internal.hidden_columns(v_role, array(select jsonb_object_keys(p_refs)));
    v_role := sync_internal.assume_claims(p_claims, v_role);
    for v_table in select e.key as name, sync_internal.well_formed(e.key, e.value) as ids from jsonb_each(p_refs) e loop
        begin
            v_answer := v_answer || jsonb_build_object(v_table.name, (
                select coalesce(jsonb_object_agg(
                    r.id,
                    jsonb_build_object('class', r.class, 'version', r.version)
                    || case when p_records then jsonb_build_object('record', r.record::jsonb) else '{}' end
                ), '{}')
                from sync_internal.rows_of(v_table.name, v_table.ids, v_role, p_records) r
            ));
        exception
            when insufficient_privilege then
                v_answer := v_answer || jsonb_build_object(v_table.name, '{}'::jsonb);
            when undefined_column or undefined_table or undefined_function or datatype_mismatch or cannot_coerce then
                perform sync_internal.refuse_shape();
        end;
    end loop;
    perform sync_internal.assume('none', null);
    return v_answer || jsonb_build_object('hidden', v_hidden);
end
$$;

comment on function sync.gateway_visible(text, jsonb, boolean) is 'What of the changed records a user may read now.';
grant execute on function sync.gateway_visible(text, jsonb, boolean) to rowcast_gateway;

-- Definer: the registry is private.
create or replace function sync_internal.hidden_columns(p_role text, p_tables text[])
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(jsonb_object_agg(h.name, h.columns), '{}')
        from (
            select t.name, jsonb_agg(c.name order by c.name) as columns
            from sync_internal.tables t
            join sync_internal.columns c on c.table_id = t.table_id
            where t.name = any (p_tables) and not has_column_privilege(p_role, t.relation, c.position, 'select')
            group by t.name
        ) h
    );
end
$$;

comment on function sync_internal.hidden_columns(text, text[])
is 'The wire columns of tables that a role may not select.';

revoke execute on function sync_internal.hidden_columns(text, text[]) from anon, authenticated, service_role;
grant execute on function sync_internal.hidden_columns(text, text[]) to rowcast_gateway;
