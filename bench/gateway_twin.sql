-- What the gateway does, without it: one request, one commit.
\set n random(0, 99999)
\set t 1000000 + :n
\set u 1000000 + :n / 1000 * 20 + random(0, 19)
\set a random(100000000000, 999999999999)
select w.ord, w.status, w.body, w.again from sync.gateway_write(array['{"sub": "00000000-0000-7000-8000-00000:u", "role": "authenticated", "exp": 4102444800}'], array['{"txId": ":now-7000-8000-:a", "operations": [{"type":"set","table":"tasks","id":"00000000-0000-7000-8000-00000:t","key":"title","value":"New title :a"},{"type":"set-now","table":"tasks","id":"00000000-0000-7000-8000-00000:t","key":"updatedAt"}]}']) as w where current_user = session_user;
