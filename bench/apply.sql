-- Two operations on one task, as one of its members.
\set n random(0, 99999)
\set t 1000000 + :n
\set u 1000000 + :n / 1000 * 20 + random(0, 19)
\set a random(100000000000, 999999999999)
select bench.rowcast_apply('00000000-0000-7000-8000-00000:u', ':now-7000-8000-:a', '[{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:t","key":"title","value":"New title :a"},{"type":"set-now","table":"tasks","id":"00000000-0000-7000-8000-00000:t","key":"updatedAt"}]');
