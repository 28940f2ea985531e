-- Purpose: mails are sent by jobs: those of the outbox, and digests of what people are told of.
-- Lock: none on tables in use but for inserts. Breaking: no.

insert into jobs.kinds (kind, max_attempts, first_delay_seconds, timeout_seconds) values
('mail', 12, 30, 60),
('digest', 8, 10, 60);

-- What waits in the outbox already.
insert into jobs.pgqueuer (entrypoint, payload, headers, priority, dedupe_key, status)
select
    'mail', convert_to(jsonb_build_object('id', m.id)::text, 'UTF8'),
    jsonb_build_object('claims', null, 'key', 'mail:' || m.id, 'starts', 0), 0, 'mail:' || m.id, 'queued'
from accounts.mails m
where m.sent_at is null and m.expires_at > now();

create table accounts.topics (
    topic text primary key,
    relation regclass not null,
    setting text not null,
    constraint topic_is_a_word check (topic ~ '^[a-z][a-z0-9_]{0,39}$')
);
comment on table accounts.topics
is 'What people may be told of by mail, and the record that says whether one wants it.';
comment on column accounts.topics.relation is 'a table whose id is the user''s';
comment on column accounts.topics.setting is 'its boolean column; where a user has no row he wants it';
alter table accounts.topics owner to rowcast_owner;

create table accounts.notices (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    topic text not null,
    table_name text not null,
    record_id text not null,
    details jsonb not null,
    created_at timestamptz not null default now(),
    constraint notice_of_topic foreign key (topic) references accounts.topics (topic) on delete cascade,
    constraint notice_once unique (user_id, topic, table_name, record_id)
);
comment on table accounts.notices is 'What a user will be told of by his next digest.';
create index notices_topic on accounts.notices (topic);
alter table accounts.notices owner to rowcast_owner;

insert into sync_internal.settings (name, value) values
('digest_seconds', 300);
