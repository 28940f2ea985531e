-- The bench's data: 100 workspaces of 20 members, 10 boards each, 100 tasks on each board (100 000 tasks), and one more
-- user who belongs to ten workspaces and so reads 10 000 tasks. Ids end in a decimal number, so that a script can name
-- any of them: 1000000 + n for the n-th task (on board n/100, in workspace n/1000), user, board and workspace alike.

create schema bench;

create function bench.id(p_number bigint)
returns uuid
language sql
immutable
parallel safe
as $$ select ('00000000-0000-7000-8000-00000' || 1000000 + p_number)::uuid $$;

insert into public.workspaces (id, name, owner_id, member_ids)
select
    bench.id(w), 'Workspace ' || w, bench.id(w * 20),
    (select jsonb_agg(bench.id(w * 20 + u)) from generate_series(1, 19) u)
    || case when w < 10 then jsonb_build_array(bench.id(900000)) else '[]' end
from generate_series(0, 99) w;

insert into public.boards (id, workspace_id, name, order_key, created_by)
select bench.id(b), bench.id(b / 10), 'Board ' || b, 'a' || b, bench.id(b / 10 * 20)
from generate_series(0, 999) b;

insert into public.tasks (
    id, board_id, title, description, status, priority, assignee_id, due_date, tags, order_key, metadata, created_by
)
select
    bench.id(t), bench.id(t / 100), 'Task number ' || t, 'What has to be done for task ' || t, 'todo',
    case when t % 3 = 0 then 'high' end, bench.id(t / 1000 * 20 + t % 20), date '2031-01-01' + t % 365,
    '["one", "two"]', 'a' || lpad((t % 100)::text, 3, '0'), jsonb_build_object('points', t % 8),
    bench.id(t / 1000 * 20)
from generate_series(0, 99999) t;

truncate sync_internal.changes;
