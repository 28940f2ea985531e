-- Demo users and data of the example apps. Plain SQL: it reaches clients like any write.
--
--   alice  owns the workspace "Demo" and the notebook she shares with bob
--   bob    is a member of "Demo", and has a notebook of his own
--   carol  has a workspace and a notebook of her own, and no access to alice's
--
-- Times lie in the past and days in the future as seen from the day the seed runs.

-- Who may sign in to the demo. Never made live: sync.enable is not called for it, and no role that
-- acts for a user can look into the schema. The gateway's login reads it for the development sign-in.
create schema if not exists demo_auth;
revoke all on schema demo_auth from public;
comment on schema demo_auth is 'Sign-in of the demo users. Not synced.';

create table demo_auth.users (
    name text not null,
    user_id uuid not null,
    display_name text not null,
    constraint users_pkey primary key (name),
    constraint users_user_id_once unique (user_id)
);
comment on table demo_auth.users is 'The demo users, by the name they sign in with.';
alter table demo_auth.users enable row level security;
create policy users_gateway on demo_auth.users for select to rowcast_gateway using (true);
revoke all on demo_auth.users from public, anon, authenticated, service_role;
grant usage on schema demo_auth to rowcast_gateway;
grant select on demo_auth.users to rowcast_gateway;

insert into demo_auth.users (name, user_id, display_name)
values
('alice', '00000000-0000-7000-8000-00000000a11c', 'Alice'),
('bob', '00000000-0000-7000-8000-000000000b0b', 'Bob'),
('carol', '00000000-0000-7000-8000-00000000ca01', 'Carol');

insert into public.workspaces (id, name, owner_id, member_ids)
values
(
    '00000000-0000-7000-8000-0000000a0001', 'Demo',
    '00000000-0000-7000-8000-00000000a11c', '["00000000-0000-7000-8000-000000000b0b"]'
),
(
    '00000000-0000-7000-8000-0000000a0002', 'Carol''s own',
    '00000000-0000-7000-8000-00000000ca01', '[]'
);

insert into public.boards (id, workspace_id, name, description, order_key, created_by)
values
(
    '00000000-0000-7000-8000-0000000b0001', '00000000-0000-7000-8000-0000000a0001',
    'Launch', 'What is left to do before the first release.', 'a0',
    '00000000-0000-7000-8000-00000000a11c'
),
(
    '00000000-0000-7000-8000-0000000b0002', '00000000-0000-7000-8000-0000000a0001',
    'Ideas', null, 'a1',
    '00000000-0000-7000-8000-000000000b0b'
),
(
    '00000000-0000-7000-8000-0000000b0003', '00000000-0000-7000-8000-0000000a0002',
    'Garden', 'Spring and summer.', 'a0',
    '00000000-0000-7000-8000-00000000ca01'
);

-- numbered 1 to 12 on alice's boards, 13 and 14 on carol's
insert into public.tasks (
    id, board_id, title, description, status, priority, assignee_id, due_date, tags, order_key,
    metadata, created_by, created_at
)
select
    ('00000000-0000-7000-8000-0000000c' || lpad(t.nr::text, 4, '0'))::uuid,
    ('00000000-0000-7000-8000-0000000b000' || t.board)::uuid,
    t.title,
    t.description,
    t.status,
    t.priority,
    t.assignee_id::uuid,
    current_date + t.due_in,
    t.tags::jsonb,
    t.order_key,
    t.metadata::jsonb,
    t.created_by::uuid,
    now() - make_interval(hours => 30 - t.nr)
from (
    values
    (
        1, 1, 'Write the announcement', 'Three paragraphs and one picture.', 'in_progress', 'high',
        '00000000-0000-7000-8000-00000000a11c', 3, '["writing", "launch"]', 'a0',
        '{"estimate": {"hours": 4}, "votes": 2}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        2, 1, 'Record a two-minute demo', null, 'todo', 'high',
        '00000000-0000-7000-8000-000000000b0b', 5, '["launch", "video"]', 'a1',
        '{"estimate": {"hours": 6}}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        3, 1, 'Check the contrast of the colours', 'Both themes.', 'todo', 'medium',
        '00000000-0000-7000-8000-000000000b0b', 7, '["design"]', 'a2',
        '{}', '00000000-0000-7000-8000-000000000b0b'
    ),
    (
        4, 1, 'Load test with 1 000 clients', null, 'in_progress', 'medium',
        '00000000-0000-7000-8000-00000000a11c', 2, '["performance"]', 'a3',
        '{"target": {"clients": 1000, "p99Ms": 50}}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        5, 1, 'Choose a licence', null, 'done', 'low',
        '00000000-0000-7000-8000-00000000a11c', null, '["legal"]', 'a4',
        '{}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        6, 1, 'Reserve the domain', null, 'done', null,
        null, null, '[]', 'a5',
        '{}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        7, 1, 'Proofread the tutorial', 'As somebody who has never seen it.', 'todo', 'medium',
        null, 6, '["docs"]', 'a6',
        '{"checklist": [{"text": "install", "done": true}, {"text": "first app", "done": false}]}',
        '00000000-0000-7000-8000-000000000b0b'
    ),
    (
        8, 1, 'Ask five people to try it', null, 'todo', 'low',
        null, 10, '["launch", "feedback"]', 'a7',
        '{"asked": 0}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        9, 2, 'Keyboard shortcuts', 'j and k to move, x to tick.', 'todo', 'medium',
        null, null, '["ui"]', 'a0',
        '{"votes": 5}', '00000000-0000-7000-8000-000000000b0b'
    ),
    (
        10, 2, 'Dark theme', null, 'in_progress', 'low',
        '00000000-0000-7000-8000-000000000b0b', null, '["ui", "design"]', 'a1',
        '{"votes": 8}', '00000000-0000-7000-8000-000000000b0b'
    ),
    (
        11, 2, 'Print a board', null, 'todo', 'low',
        null, null, '[]', 'a2',
        '{"votes": 1}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        12, 2, 'Calendar of due dates', null, 'todo', null,
        null, null, '["ui"]', 'a3',
        '{"votes": 3}', '00000000-0000-7000-8000-00000000a11c'
    ),
    (
        13, 3, 'Plant tomatoes', null, 'todo', 'high',
        '00000000-0000-7000-8000-00000000ca01', 4, '["spring"]', 'a0',
        '{}', '00000000-0000-7000-8000-00000000ca01'
    ),
    (
        14, 3, 'Mend the fence', null, 'done', null,
        null, null, '[]', 'a1',
        '{}', '00000000-0000-7000-8000-00000000ca01'
    )
) as t (
    nr, board, title, description, status, priority, assignee_id, due_in, tags, order_key,
    metadata, created_by
);

insert into public.comments (id, task_id, content, author_id, created_at)
values
(
    '00000000-0000-7000-8000-0000000d0001', '00000000-0000-7000-8000-0000000c0001',
    'The draft is in the notebook. Please be merciless.',
    '00000000-0000-7000-8000-00000000a11c', now() - interval '5 hours'
),
(
    '00000000-0000-7000-8000-0000000d0002', '00000000-0000-7000-8000-0000000c0001',
    'The second paragraph could go.',
    '00000000-0000-7000-8000-000000000b0b', now() - interval '4 hours'
),
(
    '00000000-0000-7000-8000-0000000d0003', '00000000-0000-7000-8000-0000000c0004',
    'Steady at 600. The rest is my laptop, I think.',
    '00000000-0000-7000-8000-00000000a11c', now() - interval '2 hours'
),
(
    '00000000-0000-7000-8000-0000000d0004', '00000000-0000-7000-8000-0000000c0010',
    'Half of the icons are still white on white.',
    '00000000-0000-7000-8000-000000000b0b', now() - interval '1 hour'
),
(
    '00000000-0000-7000-8000-0000000d0005', '00000000-0000-7000-8000-0000000c0013',
    'Not before the last frost.',
    '00000000-0000-7000-8000-00000000ca01', now() - interval '1 day'
);

insert into public.notebooks (id, name, owner_id, shared_with)
values
(
    '00000000-0000-7000-8000-0000000e0001', 'Launch notes',
    '00000000-0000-7000-8000-00000000a11c', '["00000000-0000-7000-8000-000000000b0b"]'
),
(
    '00000000-0000-7000-8000-0000000e0002', 'Alice''s diary',
    '00000000-0000-7000-8000-00000000a11c', '[]'
),
(
    '00000000-0000-7000-8000-0000000e0003', 'Bob''s recipes',
    '00000000-0000-7000-8000-000000000b0b', '[]'
),
(
    '00000000-0000-7000-8000-0000000e0004', 'Carol''s garden',
    '00000000-0000-7000-8000-00000000ca01', '[]'
);

insert into public.notes (id, notebook_id, title, content, tags, is_pinned, created_by)
values
(
    '00000000-0000-7000-8000-0000000f0001', '00000000-0000-7000-8000-0000000e0001',
    'Announcement, draft', 'Your database already knows who may see what.', '["writing"]', true,
    '00000000-0000-7000-8000-00000000a11c'
),
(
    '00000000-0000-7000-8000-0000000f0002', '00000000-0000-7000-8000-0000000e0001',
    'People to ask', 'Somebody who has never used it, first of all.', '["feedback"]', false,
    '00000000-0000-7000-8000-000000000b0b'
),
(
    '00000000-0000-7000-8000-0000000f0003', '00000000-0000-7000-8000-0000000e0002',
    'Monday', 'Nobody else reads this.', '[]', false,
    '00000000-0000-7000-8000-00000000a11c'
),
(
    '00000000-0000-7000-8000-0000000f0004', '00000000-0000-7000-8000-0000000e0003',
    'Onion soup', 'Patience, mostly.', '["soup"]', false,
    '00000000-0000-7000-8000-000000000b0b'
),
(
    '00000000-0000-7000-8000-0000000f0005', '00000000-0000-7000-8000-0000000e0004',
    'What grew where', 'Beans after potatoes.', '["plan"]', true,
    '00000000-0000-7000-8000-00000000ca01'
);
