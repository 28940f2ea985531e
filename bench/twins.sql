-- What the bench measures Rowcast against: tables like the live ones without its triggers, and functions written by hand
-- that do the same writes with static SQL. Both sides are called by the login rowcast_gateway in one statement, take on
-- the role authenticated and the claims of a member, and write the same receipt and the same rows of the same feed.

create table bench.tasks (like public.tasks including all);
alter table bench.tasks add constraint tasks_on_board foreign key (board_id) references public.boards (id) on delete cascade;
insert into bench.tasks select * from public.tasks;
-- What the application does whenever a task is written is no part of the comparison: it is done here as well.
create trigger tasks_tell_assignee_new
after insert on bench.tasks
for each row
when (new.assignee_id is not null)
execute function app_private.tell_assignee();
create trigger tasks_tell_assignee
after update on bench.tasks
for each row
when (new.assignee_id is not null and new.assignee_id is distinct from old.assignee_id)
execute function app_private.tell_assignee();
create trigger tasks_tell_webhook
after update on bench.tasks
for each row
when (new.status = 'done' and old.status <> 'done')
execute function app_private.tell_webhook();
alter table bench.tasks enable row level security;
create policy tasks_select on bench.tasks
for select to authenticated
using (board_id = any (array(select app_private.my_board_ids())));
create policy tasks_update on bench.tasks
for update to authenticated
using (board_id = any (array(select app_private.my_board_ids())))
with check (board_id = any (array(select app_private.my_board_ids())));
grant usage on schema bench to rowcast_gateway, authenticated;
-- The same grants by column, and the version, which no trigger counts here.
grant select on bench.tasks to authenticated;
grant update (
    board_id, title, description, status, priority, assignee_id, due_date, tags, order_key, metadata, updated_at, deleted,
    version
) on bench.tasks to authenticated;

-- By hand everything would be the application's own: its login may write receipts and feed itself.
alter table sync_internal.receipts disable row level security;
alter table sync_internal.changes disable row level security;
grant insert, select on sync_internal.receipts to rowcast_gateway;
grant insert on sync_internal.changes to rowcast_gateway;
grant usage on sequence sync_internal.change_seq to rowcast_gateway;

-- Rowcast as an application server calls it: identity and write in one statement.
create function bench.rowcast_apply(p_user text, p_tx_id uuid, p_operations jsonb)
returns jsonb
language plpgsql
as $$
declare
    v_versions jsonb;
begin
    perform sync.act_as(p_user);
    v_versions := sync.apply(p_operations, p_tx_id);
    perform set_config('role', 'none', true);
    return v_versions;
end
$$;

-- By hand: set the title of one task and touch it. Gives the new version, null where the id was used before.
create function bench.hand_apply(p_user text, p_tx_id uuid, p_task uuid, p_title text)
returns integer
language plpgsql
as $$
declare
    v_seq bigint := nextval('sync_internal.change_seq');
    v_row record;
begin
    perform set_config('role', 'authenticated', true);
    perform set_config('request.jwt.claims', json_build_object('sub', p_user, 'role', 'authenticated')::text, true);
    update bench.tasks t
    set title = p_title, updated_at = now(), version = t.version + 1
    where t.id = p_task
    returning
        old.title as was_title, old.updated_at as was_updated_at, t.updated_at, t.version, t.board_id, t.assignee_id
    into v_row;
    if not found then
        raise exception 'forbidden';
    end if;
    perform set_config('role', 'none', true);

    insert into sync_internal.changes (slot, table_name, record_id, version, kind, topics, patch, undo, class)
    values (
        (extract(epoch from now())::bigint / 432000 % 8)::smallint, 'tasks', p_task::text, v_row.version, 'update',
        array_remove(array['boardId=' || v_row.board_id, 'assigneeId=' || v_row.assignee_id], null),
        json_build_object('title', p_title, 'updatedAt', v_row.updated_at),
        json_build_object('title', v_row.was_title, 'updatedAt', v_row.was_updated_at),
        row(v_row.board_id)::text
    );
    insert into sync_internal.receipts (tx_id, author, digest, outcome, id_time, seq_from, seq_to)
    values (
        p_tx_id, p_user, hashtextextended(p_title, 0),
        jsonb_build_object('status', 'applied', 'versions', jsonb_build_array(
            jsonb_build_object('table', 'tasks', 'id', p_task, 'version', v_row.version)
        )),
        null, v_seq, nextval('sync_internal.change_seq')
    )
    on conflict (tx_id) do nothing;
    if not found then
        raise exception 'duplicate';
    end if;
    notify rowcast;
    return v_row.version;
end
$$;

-- By hand: ten changes on three tasks, as three updates. The rows of the feed go in together.
create function bench.hand_three(p_user text, p_tx_id uuid, p_first uuid, p_second uuid, p_third uuid, p_text text)
returns jsonb
language plpgsql
as $$
declare
    v_seq bigint := nextval('sync_internal.change_seq');
    v_slot smallint := (extract(epoch from now())::bigint / 432000 % 8)::smallint;
    v_one record;
    v_two record;
    v_three record;
    v_versions jsonb;
begin
    perform set_config('role', 'authenticated', true);
    perform set_config('request.jwt.claims', json_build_object('sub', p_user, 'role', 'authenticated')::text, true);
    update bench.tasks t
    set title = p_text, status = 'done', updated_at = now(), version = t.version + 1
    where t.id = p_first
    returning
        old.title as was_title, old.status as was_status, old.updated_at as was_updated_at, t.updated_at, t.version,
        t.board_id, t.assignee_id
    into strict v_one;
    update bench.tasks t
    set
        title = p_text, tags = (t.tags - p_text) || to_jsonb(p_text), updated_at = now(), version = t.version + 1
    where t.id = p_second
    returning
        old.title as was_title, old.tags as was_tags, old.updated_at as was_updated_at, t.tags, t.updated_at, t.version,
        t.board_id, t.assignee_id
    into strict v_two;
    update bench.tasks t
    set
        title = p_text, description = p_text, metadata = jsonb_set(t.metadata, '{points}', '5'), updated_at = now(),
        version = t.version + 1
    where t.id = p_third
    returning
        old.title as was_title, old.description as was_description, old.metadata as was_metadata,
        old.updated_at as was_updated_at, t.metadata, t.updated_at, t.version, t.board_id, t.assignee_id
    into strict v_three;
    perform set_config('role', 'none', true);

    insert into sync_internal.changes (slot, table_name, record_id, version, kind, topics, patch, undo, class)
    values
    (
        v_slot, 'tasks', p_first::text, v_one.version, 'update',
        array_remove(array['boardId=' || v_one.board_id, 'assigneeId=' || v_one.assignee_id], null),
        json_build_object('title', p_text, 'status', 'done', 'updatedAt', v_one.updated_at),
        json_build_object('title', v_one.was_title, 'status', v_one.was_status, 'updatedAt', v_one.was_updated_at),
        row(v_one.board_id)::text
    ),
    (
        v_slot, 'tasks', p_second::text, v_two.version, 'update',
        array_remove(array['boardId=' || v_two.board_id, 'assigneeId=' || v_two.assignee_id], null),
        json_build_object('title', p_text, 'tags', v_two.tags, 'updatedAt', v_two.updated_at),
        json_build_object('title', v_two.was_title, 'tags', v_two.was_tags, 'updatedAt', v_two.was_updated_at),
        row(v_two.board_id)::text
    ),
    (
        v_slot, 'tasks', p_third::text, v_three.version, 'update',
        array_remove(array['boardId=' || v_three.board_id, 'assigneeId=' || v_three.assignee_id], null),
        json_build_object(
            'title', p_text, 'description', p_text, 'metadata', v_three.metadata, 'updatedAt', v_three.updated_at
        ),
        json_build_object(
            'title', v_three.was_title, 'description', v_three.was_description, 'metadata', v_three.was_metadata,
            'updatedAt', v_three.was_updated_at
        ),
        row(v_three.board_id)::text
    );
    v_versions := jsonb_build_array(
        jsonb_build_object('table', 'tasks', 'id', p_first, 'version', v_one.version),
        jsonb_build_object('table', 'tasks', 'id', p_second, 'version', v_two.version),
        jsonb_build_object('table', 'tasks', 'id', p_third, 'version', v_three.version)
    );
    insert into sync_internal.receipts (tx_id, author, digest, outcome, id_time, seq_from, seq_to)
    values (
        p_tx_id, p_user, hashtextextended(p_text, 0), jsonb_build_object('status', 'applied', 'versions', v_versions), null,
        v_seq, nextval('sync_internal.change_seq')
    )
    on conflict (tx_id) do nothing;
    if not found then
        raise exception 'duplicate';
    end if;
    notify rowcast;
    return v_versions;
end
$$;

-- Bulk: the same rows without Rowcast.
analyze bench.tasks;
