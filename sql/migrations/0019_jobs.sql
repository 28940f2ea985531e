-- Purpose: background jobs: their kinds, what people may watch of them, workers, schedules.
-- Lock: none on tables in use. Breaking: no.

comment on schema jobs is 'Rowcast: background jobs. Functions are the API; pgqueuer''s tables are the worker''s.';
alter schema jobs owner to rowcast_owner;
grant usage on schema jobs to authenticated, service_role, rowcast_worker;

comment on table jobs.pgqueuer is 'Jobs that are queued, under way or held. Of pgqueuer.';
comment on function jobs.fn_pgqueuer_changed() is 'Trigger: tells workers that there is something to do. Of pgqueuer.';
comment on table jobs.pgqueuer_log is 'When jobs were taken, for a day. Of pgqueuer.';
comment on table jobs.pgqueuer_schedules is 'Of pgqueuer, and empty: see jobs.schedules.';
comment on table jobs.pgqueuer_statistics is 'Of pgqueuer, and empty.';

-- Each job is updated a few times and then deleted.
alter table jobs.pgqueuer set (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 500
);

create table jobs.kinds (
    kind text primary key,
    handler text,
    watched boolean not null default false,
    max_attempts integer not null default 8,
    first_delay_seconds double precision not null default 5,
    timeout_seconds integer not null default 60,
    concurrency integer not null default 0,
    priority integer not null default 0,
    constraint kind_is_a_word check (kind ~ '^[a-z][a-z0-9_.-]{0,62}$'),
    constraint kind_has_bounds check (
        max_attempts between 1 and 100 and first_delay_seconds between 0 and 86400
        and timeout_seconds between 1 and 86400 and concurrency between 0 and 1000
    )
);
comment on table jobs.kinds is 'The kinds of job there are.';
comment on column jobs.kinds.handler is 'signature of the SQL function that does it; null: the worker''s own code does';
comment on column jobs.kinds.watched is 'its jobs have a row in jobs.runs';
comment on column jobs.kinds.first_delay_seconds is 'before the second attempt; doubled each time, at most an hour';
comment on column jobs.kinds.concurrency is 'so many at once over all workers; 0: any number';

create table jobs.runs (
    id uuid primary key default gen_random_uuid(),
    job_id bigint,
    kind text not null,
    user_id text,
    state text not null default 'queued',
    progress double precision not null default 0,
    message text,
    result jsonb,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    ended_at timestamptz,
    version integer not null default 1,
    constraint run_state_known check (state in ('queued', 'running', 'done', 'held', 'replaced', 'cancelled')),
    constraint run_progress_is_a_share check (progress between 0 and 1)
);
comment on table jobs.runs is 'What its owner may watch of a job: a record, live where sync.enable is said of it.';
comment on column jobs.runs.job_id is 'the job, as long as there is one';
comment on column jobs.runs.user_id is 'whose it is: who has started it';
comment on column jobs.runs.progress is 'from 0 to 1';
comment on column jobs.runs.message is 'for people';
create unique index runs_job_id on jobs.runs (job_id) where job_id is not null;
create index runs_user_id on jobs.runs (user_id, created_at);
create index runs_ended_at on jobs.runs (ended_at);
grant select (id, kind, user_id, state, progress, message, result, created_at, updated_at, ended_at, version)
on jobs.runs to authenticated, service_role;

create sequence jobs.worker_numbers as integer cycle;
create table jobs.workers (
    id uuid primary key,
    number integer not null default nextval('jobs.worker_numbers') constraint worker_number_once unique,
    started_at timestamptz not null default now()
);
comment on table jobs.workers
is 'Workers: one is there as long as a session holds the advisory lock (7215606, number).';

create table jobs.schedules (
    name text primary key,
    kind text not null,
    payload jsonb not null default '{}',
    every interval not null,
    next_at timestamptz not null default now(),
    constraint schedule_of_kind foreign key (kind) references jobs.kinds (kind) on delete cascade,
    constraint schedule_waits check (every >= interval '1 minute')
);
comment on table jobs.schedules is 'Jobs that are started again and again, once over all workers.';
create index schedules_kind on jobs.schedules (kind);

insert into jobs.kinds (kind, max_attempts, timeout_seconds) values
('prune', 3, 600),
('sweep', 3, 3600);
insert into jobs.schedules (name, kind, every) values
('prune', 'prune', '1 hour'),
('sweep', 'sweep', '1 hour');

do $$
declare
    v_object record;
begin
    for v_object in
        select c.oid::regclass as name, c.relkind from pg_catalog.pg_class c
        where c.relnamespace = 'jobs'::regnamespace and c.relkind in ('r', 'S')
            -- A sequence of a column goes with its table.
            and not exists (
                select from pg_catalog.pg_depend d
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
            )
    loop
        execute format(
            'alter %s %s owner to rowcast_owner', case v_object.relkind when 'S' then 'sequence' else 'table' end,
            v_object.name
        );
    end loop;
end
$$;
alter type jobs.pgqueuer_status owner to rowcast_owner;
revoke usage on type jobs.pgqueuer_status from public;
grant usage on type jobs.pgqueuer_status to rowcast_worker;
-- What pgqueuer itself asks for; a job is put in and ended by functions of ours.
grant select, update on jobs.pgqueuer to rowcast_worker;
grant select, insert on jobs.pgqueuer_log to rowcast_worker;
grant select on jobs.pgqueuer_statistics to rowcast_worker;

insert into sync_internal.settings (name, value) values
('max_job_bytes', 65536),
('job_run_days', 30);
