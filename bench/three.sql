-- Ten operations on three tasks of a board, as one of its members.
\set b random(0, 999)
\set u 1000000 + :b / 10 * 20 + random(0, 19)
\set x 1000000 + :b * 100 + random(0, 32)
\set y 1000000 + :b * 100 + random(33, 65)
\set z 1000000 + :b * 100 + random(66, 99)
\set a random(100000000000, 999999999999)
select bench.rowcast_apply('00000000-0000-7000-8000-00000:u', ':now-7000-8000-:a', '[{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:x","key":"title","value":"Text :a"},{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:x","key":"status","value":"done"},{"type":"set-now","table":"tasks","id":"00000000-0000-7000-8000-00000:x","key":"updatedAt"},{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:y","key":"title","value":"Text :a"},{"type":"listInsert","table":"tasks","id":"00000000-0000-7000-8000-00000:y","key":"tags","value":"Text :a"},{"type":"set-now","table":"tasks","id":"00000000-0000-7000-8000-00000:y","key":"updatedAt"},{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:z","key":"title","value":"Text :a"},{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:z","key":"description","value":"Text :a"},{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:z","key":"metadata.points","value":5},{"type":"set-now","table":"tasks","id":"00000000-0000-7000-8000-00000:z","key":"updatedAt"}]');
