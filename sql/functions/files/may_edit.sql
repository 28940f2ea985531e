-- Whether the caller may edit a row: its table's UPDATE policies and his grants, asked as PostgreSQL asks them, by a lock.
-- For policies of what hangs on that row. Missing, invisible and not permitted are one answer: false; so is null.
--
-- p_column: the column that p_id is of; default: the primary key. Locks the row in key share mode, so that it stays until
-- the end of the transaction. Plans a statement at each call, about 0.5 ms: for writes, not for lists.
create or replace function sync.may_edit(p_table regclass, p_id text, p_column text default null)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_column name;
    v_type text;
    v_found boolean;
begin
    select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) into v_column, v_type
    from pg_catalog.pg_attribute a
    where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
        and case
            when p_column is null then exists (
                select from pg_catalog.pg_index i
                where i.indrelid = p_table and i.indisprimary and i.indnkeyatts = 1 and i.indkey[0] = a.attnum
            )
            else a.attname = p_column
        end;
    if v_column is null then
        raise exception using errcode = '22023', message = format('%s has no such column', p_table),
            hint = 'Say p_column => ''...'': the column the id is of.';
    end if;
    execute format('select true from %s r where r.%I = $1::%s for key share', p_table, v_column, v_type)
    into v_found using p_id;
    return v_found is not null;
exception
    -- No right to update the table at all.
    when insufficient_privilege then
        return false;
end
$$;

comment on function sync.may_edit(regclass, text, text) is 'Whether the caller may edit a row.';
grant execute on function sync.may_edit(regclass, text, text) to anon, authenticated, service_role;
