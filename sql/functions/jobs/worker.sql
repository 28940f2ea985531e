-- What a worker calls besides pgqueuer's own statements. p_worker: the id it takes jobs under. What it says of a job that
-- is not its own any more has no effect.

-- Registers a worker, under whose number its session then takes the advisory lock (7215606, number): jobs of a worker
-- without that lock are given to others.
create or replace function jobs.worker_open(p_worker uuid)
returns integer
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into jobs.workers (id) values (p_worker) returning number
$$;

comment on function jobs.worker_open(uuid) is 'Registers a worker.';

-- How long a job waits after so many attempts: longer each time, and scattered by half, so that what failed together does
-- not come back together.
create or replace function jobs.wait_after(p_first_delay_seconds double precision, p_attempts integer)
returns interval
language sql
volatile
parallel safe
security invoker
as $$
    select least(3600, p_first_delay_seconds * 2.0 ^ greatest(0, p_attempts - 1)) * (0.5 + random())
        * interval '1 second'
$$;

comment on function jobs.wait_after(double precision, integer) is 'How long a job waits after so many attempts.';

-- Gives jobs of workers that are gone to others, starts what is due by a schedule, and says which kinds there are:
-- [{"kind", "sql", "concurrency", "timeoutSeconds"}].
create or replace function jobs.worker_tick()
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gone uuid[];
    v_due record;
    v_key text;
begin
    -- Who has only just registered may not have its lock yet.
    select array_agg(w.id) into v_gone
    from jobs.workers w
    where w.started_at < now() - interval '10 seconds'
        and not exists (
            select from pg_locks l
            where l.locktype = 'advisory' and l.granted and l.classid = 7215606 and l.objid::bigint = w.number
                and l.objsubid = 2
                and l.database = (select d.oid from pg_database d where d.datname = current_database())
        );
    if v_gone is not null then
        -- At once, but for what has lost a worker before: it may be what kills them, and those beside it have to get on.
        perform jobs.put_back(
            j.id,
            now() + case
                when j.starts > 1 then jobs.wait_after(coalesce(j.first_delay_seconds, 0), j.starts - 1)
                else '0'
            end,
            j.starts
        )
        from (
            select p.id, (p.headers ->> 'starts')::integer as starts, k.first_delay_seconds
            from jobs.pgqueuer p left join jobs.kinds k on k.kind = p.entrypoint
            where p.status = 'picked' and p.queue_manager_id = any (v_gone)
            order by p.id
            for update of p skip locked
        ) j;
        delete from jobs.workers w
        where w.id = any (v_gone)
            and not exists (select from jobs.pgqueuer p where p.status = 'picked' and p.queue_manager_id = w.id);
    end if;

    for v_due in
        update jobs.schedules s
        set next_at = s.next_at + s.every * ceil(
            greatest(1, extract(epoch from now() - s.next_at) / extract(epoch from s.every) + 1e-6)
        )
        from jobs.kinds k
        where k.kind = s.kind and s.name in (
            select d.name from jobs.schedules d where d.next_at <= now() order by d.name for update skip locked
        )
        returning s.name, s.kind, s.payload, k.priority
    loop
        v_key := v_due.kind || ':schedule:' || v_due.name;
        -- This one does the work of one that is held, of which there would be another each time.
        perform jobs.cancel(j.id) from jobs.pgqueuer j where j.status = 'failed' and j.headers ->> 'key' = v_key;
        insert into jobs.pgqueuer (entrypoint, payload, headers, priority, dedupe_key, status)
        values (
            v_due.kind, convert_to(v_due.payload::text, 'UTF8'),
            jsonb_build_object('claims', null, 'key', v_key, 'starts', 0), v_due.priority, v_key, 'queued'
        )
        on conflict do nothing;
    end loop;

    return (
        select coalesce(jsonb_agg(jsonb_build_object(
            'kind', k.kind, 'sql', k.handler is not null, 'concurrency', k.concurrency,
            'timeoutSeconds', k.timeout_seconds
        )), '[]')
        from jobs.kinds k
    );
end
$$;

comment on function jobs.worker_tick() is 'Gives lost jobs to others and starts what is due.';

-- Begins an attempt: {"payload", "claims", "attempt", "sql", "timeoutSeconds"}; null where the job is not this worker's
-- any more, has killed its workers so often that it is held from now on, or waits aside since its lane is full. From here
-- on its key is free: whoever asks for the same has written something that this attempt may not see.
create or replace function jobs.worker_begin(p_id bigint, p_worker uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job jobs.pgqueuer;
    v_kind jobs.kinds;
    v_starts integer;
begin
    select j.* into v_job from jobs.pgqueuer j
    where j.id = p_id and j.queue_manager_id = p_worker and j.status = 'picked'
    for update;
    if v_job.id is null then
        return null;
    end if;
    select k.* into v_kind from jobs.kinds k where k.kind = v_job.entrypoint;
    v_starts := (v_job.headers ->> 'starts')::integer + 1;
    if v_kind.kind is null or v_starts > v_kind.max_attempts then
        perform jobs.hold(
            p_id, case when v_kind.kind is null then 'no such kind' else coalesce(
                v_job.headers ->> 'error', 'the worker ended while it did this'
            ) end
        );
        perform jobs.call_next(v_job.entrypoint, v_job.headers ->> 'lane');
        return null;
    elsif jobs.worker_disabled(v_job.headers -> 'claims') then
        perform jobs.hold(p_id, 'its user is disabled');
        perform jobs.call_next(v_job.entrypoint, v_job.headers ->> 'lane');
        return null;
    elsif jobs.put_aside(v_job, v_kind.lane_places) then
        return null;
    end if;
    update jobs.pgqueuer j
    set headers = jsonb_set(j.headers, '{starts}', to_jsonb(v_starts))
            || case when j.headers ? 'lane' then '{"begun": true}' else '{}' end::jsonb,
        dedupe_key = null, heartbeat = now()
    where j.id = p_id;
    update jobs.runs r set state = 'running', updated_at = now() where r.job_id = p_id and r.state <> 'running';
    return jsonb_build_object(
        'payload', convert_from(v_job.payload, 'UTF8')::jsonb, 'claims', v_job.headers -> 'claims',
        'attempt', v_starts, 'sql', v_kind.handler is not null, 'timeoutSeconds', v_kind.timeout_seconds
    );
end
$$;

comment on function jobs.worker_begin(bigint, uuid) is 'Begins an attempt.';

-- Takes on the identity of whoever has started a job, until the end of the transaction: null for nobody. PT403 where he
-- is disabled by now. Invoker: a definer cannot change the role.
create or replace function jobs.worker_assume(p_claims jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_claims constant jsonb := coalesce(nullif(p_claims, 'null'), '{"role": "anon"}');
    v_ok boolean;
begin
    if jobs.worker_disabled(v_claims) then
        perform sync_internal.refuse(403, 'disabled', 'This user is disabled');
    end if;
    v_ok := sync_internal.assume(coalesce(v_claims ->> 'role', 'anon'), v_claims::text);
end
$$;

comment on function jobs.worker_assume(jsonb) is 'Takes on the identity of whoever has started a job.';

create or replace function jobs.worker_disabled(p_claims jsonb)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from sync_internal.session_ends e
        where e.user_id = sync_internal.user_key(p_claims ->> 'sub') and e.disabled
    )
$$;

comment on function jobs.worker_disabled(jsonb) is 'Whether the user of these claims is disabled.';

-- Does a job whose kind has an SQL function, as the user who has started it, and ends it in the same transaction. False
-- where it is not this worker's any more. Invoker: a definer cannot change the role.
create or replace function jobs.worker_call(p_id bigint, p_worker uuid)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_work constant jsonb := jobs.worker_take(p_id, p_worker);
    v_result jsonb;
    v_role text;
begin
    if v_work is null then
        return false;
    end if;
    perform jobs.worker_assume(v_work -> 'claims');
    execute format('select %s($1)', left(v_work ->> 'handler', -length('(jsonb)')))
    into v_result using v_work -> 'payload';
    -- Whatever was put off is judged as the user, too.
    set constraints all immediate;
    v_role := set_config('role', 'none', true);
    perform jobs.worker_done(p_id, v_result);
    return true;
end
$$;

comment on function jobs.worker_call(bigint, uuid) is 'Does a job in SQL and ends it.';

-- Says that jobs are under way. One that is locked is so: its work is SQL, which keeps its row to the end, and nobody
-- else can take it.
create or replace function jobs.worker_beat(p_worker uuid, p_jobs bigint[])
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update jobs.pgqueuer j
    set heartbeat = now()
    where j.id in (
        select p.id from jobs.pgqueuer p
        where p.id = any (p_jobs) and p.queue_manager_id = p_worker and p.status = 'picked'
        for update skip locked
    )
$$;

comment on function jobs.worker_beat(uuid, bigint[]) is 'Says that jobs are under way.';

-- Takes a job out of the queue, for the transaction that does it: {"payload", "claims", "handler"}.
create or replace function jobs.worker_take(p_id bigint, p_worker uuid)
returns jsonb
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with taken as (
        delete from jobs.pgqueuer j
        where j.id = p_id and j.queue_manager_id = p_worker and j.status = 'picked'
        returning j.*
    )
    select jsonb_build_object(
        'payload', convert_from(t.payload, 'UTF8')::jsonb, 'claims', t.headers -> 'claims', 'handler', k.handler
    )
    from taken t join jobs.kinds k on k.kind = t.entrypoint
$$;

comment on function jobs.worker_take(bigint, uuid) is 'Takes a job out of the queue.';

create or replace function jobs.worker_done(p_id bigint, p_result jsonb)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jobs.end_run(p_id, 'done', p_result)
$$;

comment on function jobs.worker_done(bigint, jsonb) is 'The end of a job that was done.';

-- The outcomes of attempts: [{"id", "outcome", "error", "final", "delaySeconds", "result"}]. done: it goes. failed: it
-- waits longer each time, and is held after the last attempt or where the failure is final. returned: it was broken off,
-- and the attempt does not count. left: it was not even begun.
create or replace function jobs.worker_settle(p_worker uuid, p_outcomes jsonb)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_one record;
    v_kinds text[] := '{}';
    v_lanes text[] := '{}';
begin
    for v_one in
        select
            j.id, j.entrypoint as kind, j.headers ->> 'lane' as lane, (j.headers ->> 'starts')::integer as starts,
            o.outcome, left(o.error, 1000) as error, o.result,
            o.final is true or (j.headers ->> 'starts')::integer >= k.max_attempts as is_last,
            coalesce(
                o."delaySeconds" * interval '1 second',
                jobs.wait_after(k.first_delay_seconds, (j.headers ->> 'starts')::integer)
            ) as delay
        from jsonb_to_recordset(p_outcomes) o (
            id bigint, outcome text, error text, final boolean, "delaySeconds" double precision, result jsonb
        )
        join jobs.pgqueuer j on j.id = o.id and j.queue_manager_id = p_worker and j.status = 'picked'
        join jobs.kinds k on k.kind = j.entrypoint
        order by j.id
        for update of j
    loop
        if v_one.outcome = 'done' then
            delete from jobs.pgqueuer j where j.id = v_one.id;
            perform jobs.end_run(v_one.id, 'done', v_one.result);
        elsif v_one.outcome = 'returned' then
            perform jobs.put_back(v_one.id, now(), greatest(0, v_one.starts - 1));
        elsif v_one.outcome = 'left' then
            perform jobs.put_back(v_one.id, now(), v_one.starts);
        elsif v_one.is_last then
            perform jobs.hold(v_one.id, v_one.error);
        else
            perform jobs.put_back(v_one.id, now() + v_one.delay, v_one.starts, v_one.error);
        end if;
        v_kinds := v_kinds || v_one.kind;
        v_lanes := v_lanes || v_one.lane;
    end loop;
    for v_one in
        select e.kind, e.lane from unnest(v_kinds, v_lanes) e (kind, lane) where e.lane is not null order by e.kind, e.lane
    loop
        perform jobs.call_next(v_one.kind, v_one.lane);
    end loop;
end
$$;

comment on function jobs.worker_settle(uuid, jsonb) is 'Notes the outcomes of attempts.';

-- Keeps a job out of the way until somebody says jobs.requeue.
create or replace function jobs.hold(p_id bigint, p_error text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    update jobs.pgqueuer j
    set status = 'failed', queue_manager_id = null, slot = null, dedupe_key = null, updated = now(),
        headers = j.headers || jsonb_build_object('error', p_error)
    where j.id = p_id;
    update jobs.runs r set state = 'held', updated_at = now() where r.job_id = p_id;
end
$$;

comment on function jobs.hold(bigint, text) is 'Keeps a job out of the way.';

-- How far a job is, for who watches it: a share from 0 to 1, and a line for people.
create or replace function jobs.worker_progress(
    p_id bigint, p_worker uuid, p_progress double precision, p_message text default null
)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update jobs.runs r
    set progress = least(1, greatest(0, p_progress)), message = left(coalesce(p_message, r.message), 200),
        updated_at = now()
    where r.job_id = p_id
        and exists (
            select from jobs.pgqueuer j
            where j.id = p_id and j.queue_manager_id = p_worker and j.status = 'picked'
        )
$$;

comment on function jobs.worker_progress(bigint, uuid, double precision, text) is 'How far a job is.';

grant execute on function
jobs.worker_open(uuid), jobs.worker_tick(), jobs.worker_beat(uuid, bigint[]), jobs.worker_begin(bigint, uuid),
jobs.worker_assume(jsonb), jobs.worker_disabled(jsonb), jobs.worker_call(bigint, uuid),
jobs.worker_take(bigint, uuid), jobs.worker_done(bigint, jsonb), jobs.worker_settle(uuid, jsonb),
jobs.worker_progress(bigint, uuid, double precision, text)
to rowcast_worker;
