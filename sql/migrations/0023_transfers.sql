-- Purpose: exports and imports, webhooks, the end of records deleted long ago, statistics.
-- Lock: access exclusive on jobs.runs, for a moment. Breaking: no.

-- squawk-ignore ban-drop-constraint
alter table jobs.runs drop constraint run_state_known;
-- squawk-ignore constraint-missing-not-valid
alter table jobs.runs add constraint run_state_known check (
    state in ('waiting', 'queued', 'running', 'done', 'failed', 'held', 'replaced', 'cancelled')
);
comment on column jobs.runs.state
is 'waiting: for its user; failed: for a reason that the result names; held: for an administrator';

insert into jobs.kinds (kind, watched, max_attempts, first_delay_seconds, timeout_seconds, concurrency) values
('export', true, 6, 10, 7200, 2),
-- Its run is there before it: the file is uploaded to it.
('import', false, 10, 5, 7200, 2),
('webhook', false, 24, 5, 60, 4),
('purge', false, 3, 60, 3600, 1),
('statistics', false, 3, 60, 600, 1);
insert into jobs.schedules (name, kind, every) values
('purge', 'purge', '1 day'),
('statistics', 'statistics', '1 day');

create table jobs.webhooks (
    name text primary key,
    url text not null,
    secret bytea not null,
    former_secret bytea,
    former_until timestamptz,
    gone boolean not null default false,
    created_at timestamptz not null default now(),
    constraint webhook_name_is_short check (char_length(name) between 1 and 200),
    constraint webhook_url_is_one check (url ~ '^https?://[^[:space:][:cntrl:]]+$' and char_length(url) <= 2000)
);
comment on table jobs.webhooks is 'Where webhooks are sent, and the secrets that sign them.';
comment on column jobs.webhooks.former_secret is 'signs, too, until former_until';
comment on column jobs.webhooks.gone is 'it has answered 410: nothing is sent any more';
alter table jobs.webhooks owner to rowcast_owner;

create table jobs.purges (
    relation regclass primary key,
    after interval not null,
    constraint purge_waits check (after >= interval '1 day')
);
comment on table jobs.purges is 'After how long deleted records of a table go for good.';
alter table jobs.purges owner to rowcast_owner;

insert into sync_internal.settings (name, value) values
('export_days', 7),
('max_export_bytes', 21474836480);
