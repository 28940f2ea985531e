-- What kinds of job there are, and what is started again and again. For the owner of Rowcast's schemas.

-- Registers a kind of job, or changes it. Workers take it up within seconds.
--
-- p_handler: a function from jsonb, the payload, to jsonb, the result, that does the job in SQL, as the user who has
-- started it, and in one transaction with the end of the job: its effect happens once. That user's role needs the right
-- to execute it. Null: code of the worker does it (ROWCAST_WORKER_MODULES).
-- p_watched: each job has a row in jobs.runs that its owner may read.  p_max_attempts: then it is held.
-- p_first_delay_seconds: before the second attempt; doubled each time, at most an hour, and scattered.
-- p_timeout_seconds: after that an attempt has failed.  p_concurrency: so many at once over all workers; 0: any number.
-- Raises 22023.
create or replace function jobs.allow(
    p_kind text, p_handler regprocedure default null, p_watched boolean default false,
    p_max_attempts integer default 8, p_first_delay_seconds double precision default 5,
    p_timeout_seconds integer default 60, p_concurrency integer default 0, p_priority integer default 0
)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_form record;
begin
    select p.proargtypes = array['jsonb'::regtype::oid]::oidvector and p.prorettype = 'jsonb'::regtype
        and p.prokind = 'f' and not p.proretset as fits,
        format('%I.%I(jsonb)', n.nspname, p.proname) as signature
    into v_form
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid = p_handler;
    if p_handler is not null and v_form.fits is not true then
        raise exception using errcode = '22023', message = 'The handler of a job is a function from jsonb to jsonb';
    end if;
    insert into jobs.kinds as k (
        kind, handler, watched, max_attempts, first_delay_seconds, timeout_seconds, concurrency, priority
    ) values (
        p_kind, v_form.signature, p_watched, p_max_attempts, p_first_delay_seconds, p_timeout_seconds, p_concurrency,
        p_priority
    )
    on conflict (kind) do update set
        handler = excluded.handler, watched = excluded.watched, max_attempts = excluded.max_attempts,
        first_delay_seconds = excluded.first_delay_seconds, timeout_seconds = excluded.timeout_seconds,
        concurrency = excluded.concurrency, priority = excluded.priority;
end
$$;

comment on function jobs.allow(
    text, regprocedure, boolean, integer, double precision, integer, integer, integer
) is 'Registers a kind of job.';

-- Starts a job of a kind again and again, once over all workers. While one waits there is no second. p_at: the first
-- time; those that were missed are made up for once. The job acts as nobody.
create or replace function jobs.schedule(
    p_name text, p_kind text, p_every interval, p_payload jsonb default '{}', p_at timestamptz default now()
)
returns void
language sql
volatile
parallel unsafe
security invoker
as $$
    insert into jobs.schedules (name, kind, every, payload, next_at) values (p_name, p_kind, p_every, p_payload, p_at)
    on conflict (name) do update set
        kind = excluded.kind, every = excluded.every, payload = excluded.payload, next_at = excluded.next_at
$$;

comment on function jobs.schedule(text, text, interval, jsonb, timestamptz) is 'Starts a job again and again.';

create or replace function jobs.unschedule(p_name text)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    delete from jobs.schedules s where s.name = p_name;
    return found;
end
$$;

comment on function jobs.unschedule(text) is 'Starts a job no more.';
