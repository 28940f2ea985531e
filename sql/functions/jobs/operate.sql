-- Looking at the queue and mending it. For administrators and trusted backends.

-- Jobs that wait, run or are held, with the last error of each; the oldest first. p_state: queued, running or held.
create or replace function jobs.list(p_state text default null, p_limit integer default 100)
returns table (
    id bigint, kind text, state text, attempts integer, run_at timestamptz, user_id text, key text, error text,
    created_at timestamptz
)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select *
    from (
        select
            j.id, j.entrypoint, case j.status when 'picked' then 'running' when 'failed' then 'held' else 'queued' end,
            (j.headers ->> 'starts')::integer, j.execute_after, j.headers -> 'claims' ->> 'sub',
            substr(j.headers ->> 'key', length(j.entrypoint) + 2), j.headers ->> 'error', j.created
        from jobs.pgqueuer j
    ) l (id, kind, state, attempts, run_at, user_id, key, error, created_at)
    where p_state is null or l.state = p_state
    order by l.id
    limit p_limit
$$;

comment on function jobs.list(text, integer) is 'Jobs that wait, run or are held.';

-- Puts held jobs back, with all their attempts: one by its number, or all, or all of a kind. Gives how many. One whose
-- key has a successor in the queue is left to that.
create or replace function jobs.requeue(p_id bigint default null, p_kind text default null)
returns integer
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select count(jobs.put_back(j.id, now(), 0))::integer
    from (
        select h.id from jobs.pgqueuer h
        where h.status = 'failed' and (p_id is null or h.id = p_id) and (p_kind is null or h.entrypoint = p_kind)
        order by h.id
        for update
    ) j
$$;

comment on function jobs.requeue(bigint, text) is 'Puts held jobs back.';

-- Removes a job that waits or is held. False where there is none, or it runs.
create or replace function jobs.cancel(p_id bigint)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from jobs.pgqueuer j where j.id = p_id and j.status in ('queued', 'failed');
    if not found then
        return false;
    end if;
    perform jobs.end_run(p_id, 'cancelled');
    return true;
end
$$;

comment on function jobs.cancel(bigint) is 'Removes a job that waits or is held.';

grant execute on function jobs.list(text, integer), jobs.requeue(bigint, text), jobs.cancel(bigint) to service_role;

-- How many jobs there are of each kind and state, and how late the oldest that is due is: for metrics.
create or replace function jobs.depth()
returns table (kind text, state text, count bigint, late_seconds double precision)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        j.entrypoint, case j.status when 'picked' then 'running' when 'failed' then 'held' else 'queued' end, count(*),
        greatest(0, max(extract(epoch from now() - j.execute_after)) filter (where j.status = 'queued'))
    from jobs.pgqueuer j
    group by j.entrypoint, j.status
$$;

comment on function jobs.depth() is 'How many jobs there are, and how late they are.';
grant execute on function jobs.depth() to service_role, rowcast_gateway, rowcast_worker;

-- Puts a job back into the queue: not before p_run_at, and with so many attempts behind it. Where its key has a
-- successor there already, that does its work and it goes. For functions of ours that hold its lock.
create or replace function jobs.put_back(p_id bigint, p_run_at timestamptz, p_starts integer, p_error text default null)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    update jobs.pgqueuer j
    set status = 'queued', execute_after = p_run_at, dedupe_key = j.headers ->> 'key', queue_manager_id = null,
        slot = null, updated = now(),
        headers = jsonb_set(j.headers - array['begun', 'aside'], '{starts}', to_jsonb(p_starts))
            || case when p_error is null then '{}' else jsonb_build_object('error', p_error) end
    where j.id = p_id;
    update jobs.runs r set state = 'queued', updated_at = now() where r.job_id = p_id and r.state <> 'queued';
    return true;
exception when unique_violation then
    delete from jobs.pgqueuer j where j.id = p_id;
    perform jobs.end_run(p_id, 'replaced');
    return true;
end
$$;

comment on function jobs.put_back(bigint, timestamptz, integer, text) is 'Puts a job back into the queue.';

-- The end of what may be watched of a job. Without effect on one that nobody watches.
create or replace function jobs.end_run(p_id bigint, p_state text, p_result jsonb default null)
returns void
language sql
volatile
parallel unsafe
security invoker
as $$
    update jobs.runs r
    set job_id = null, state = p_state, progress = case p_state when 'done' then 1 else r.progress end,
        result = coalesce(p_result, r.result), updated_at = now(), ended_at = now()
    where r.job_id = p_id
$$;

comment on function jobs.end_run(bigint, text, jsonb) is 'The end of what may be watched of a job.';

-- Removes what is of no use any more: mails that nobody will send, and runs that ended job_run_days ago.
create or replace function jobs.prune()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Of mails that are forgotten by now: where no SMTP server is set they wait for one, and are held where it refuses
    -- an address, which may be any that a stranger has signed up with.
    delete from jobs.pgqueuer j
    where j.entrypoint = 'mail' and j.status in ('queued', 'failed') and j.created < now() - interval '60 days';
    perform jobs.prune_transfers();
    delete from jobs.runs r where r.ended_at < now() - sync_internal.setting('job_run_days') * interval '1 day';
end
$$;

comment on function jobs.prune() is 'Removes what is of no use any more.';
grant execute on function jobs.prune() to rowcast_worker;
