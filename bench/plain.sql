-- Somebody else's program: one row of a live table, one commit.
\set n random(0, 99999)
\set t 1000000 + :n
\set a random(100000000000, 999999999999)
update public.tasks set title = 'New title :a' where id = '00000000-0000-7000-8000-00000:t';
