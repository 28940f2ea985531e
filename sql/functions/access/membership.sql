-- Says that each row of a table concerns the rights of one user alone, the one its column names: a membership. When
-- policies read the table, a change of it then ends what the relay keeps for those users, instead of for everybody.
-- It is believed as said: a row that decides what others see, too, must not be declared.
--
-- p_user_column: holds the claim sub, as uuid, text, integer or bigint. Said again, it replaces. For the owner of the
-- table. 22023 where the column is not there or of another type. Locks the table in share row exclusive mode while
-- triggers are made.
create or replace function sync.membership(p_table regclass, p_user_column text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    perform sync_internal.register_membership(p_table, p_user_column);
    perform sync_internal.create_watch_triggers();
end
$$;

comment on function sync.membership(regclass, text) is 'Says that each row of a table concerns one user alone.';

-- Takes sync.membership back: a change of the table concerns everybody again.
create or replace function sync.drop_membership(p_table regclass)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    perform sync_internal.register_membership(p_table, null);
    perform sync_internal.create_watch_triggers();
end
$$;

comment on function sync.drop_membership(regclass) is 'Takes sync.membership back.';

-- Definer: writes the registry. Checks that the caller owns the table. p_user_column null: no membership any more.
create or replace function sync_internal.register_membership(p_table regclass, p_user_column text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.must_own(p_table);
    if p_user_column is null then
        delete from sync_internal.memberships m where m.relation = p_table;
    elsif not exists (
        select from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        where a.attrelid = p_table and a.attname = p_user_column and a.attnum > 0 and not a.attisdropped
            and c.relkind in ('r', 'p') and c.relpersistence = 'p' and a.attgenerated <> 'v'
            and sync_internal.base_type(a.atttypid) in (
                'uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'integer'::regtype, 'bigint'::regtype
            )
    ) then
        raise exception using errcode = '22023',
            message = format('%s has no column %s that could name a user', p_table, p_user_column),
            hint = 'It must be an ordinary table''s column of type uuid, text, integer or bigint.';
    else
        insert into sync_internal.memberships (relation, user_column) values (p_table, p_user_column)
        on conflict (relation) do update set user_column = excluded.user_column;
    end if;
    perform sync_internal.settle_watches();
end
$$;

comment on function sync_internal.register_membership(regclass, text) is 'Writes a membership into the registry.';
