-- For the bench of live delivery: one more workspace, 200, of a thousand members, the users 300000 to 300999, with board
-- 5000 and its hundred tasks from 500000 on, and board 5001 of ten thousand tasks from 600000 on.
insert into public.workspaces (id, name, owner_id, member_ids)
select bench.id(200), 'Live', bench.id(300000), jsonb_agg(bench.id(300000 + u)) from generate_series(1, 999) u
on conflict (id) do update set member_ids = excluded.member_ids;

insert into public.boards (id, workspace_id, name, order_key, created_by)
select bench.id(b), bench.id(200), 'Board ' || b, 'a' || b, bench.id(300000) from unnest('{5000,5001}'::integer[]) b
on conflict do nothing;

insert into public.tasks (id, board_id, title, order_key, created_by)
select bench.id(500000 + t), bench.id(5000), 'Task ' || t, 'a' || t, bench.id(300000) from generate_series(0, 99) t
union all
select bench.id(600000 + t), bench.id(5001), 'Task ' || t, 'a' || t, bench.id(300000) from generate_series(0, 9999) t
on conflict do nothing;

analyze public.tasks;
analyze public.workspace_members;
