-- Lanes: jobs of one kind that are about the same, as webhooks to one receiver are. Few of a lane are under way at once,
-- so that one that is slow leaves places to the others. What finds its lane full waits aside, and so does what is due
-- behind it; whenever one of the lane ends, the oldest of those aside comes back. In headers: `lane`; `begun` of those
-- under way; `aside` of those that wait.

-- What begins or ends in a lane waits for whoever does so: locked until the end of the transaction. Of two that begin
-- at once each sees the other, and what is put aside while the last ones end is seen by them.
create or replace function jobs.lock_lane(p_kind text, p_lane text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    perform pg_advisory_xact_lock(7215607, hashtext(p_kind || ':' || p_lane));
end
$$;

comment on function jobs.lock_lane(text, text) is 'Waits for whoever begins or ends jobs of a lane.';

-- Puts a job aside where its lane is full: false where it is not. For functions of ours that hold its lock.
create or replace function jobs.put_aside(p_job jobs.pgqueuer, p_places integer)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_lane constant text := p_job.headers ->> 'lane';
begin
    if v_lane is null then
        return false;
    end if;
    perform jobs.lock_lane(p_job.entrypoint, v_lane);
    if (
        select count(*) from jobs.pgqueuer j
        where j.status = 'picked' and j.entrypoint = p_job.entrypoint and j.headers ->> 'lane' = v_lane
            and j.headers ? 'begun' and j.id <> p_job.id
    ) < p_places then
        return false;
    end if;
    perform jobs.put_back(p_job.id, now(), (p_job.headers ->> 'starts')::integer, p_job.headers ->> 'error');
    -- A minute at most: whoever was to call them may have been killed.
    update jobs.pgqueuer j
    set execute_after = now() + interval '1 minute', headers = j.headers || '{"aside": true}'
    where j.id in (
        select q.id from jobs.pgqueuer q
        where q.status = 'queued' and q.headers ? 'lane' and q.entrypoint = p_job.entrypoint
            and q.headers ->> 'lane' = v_lane and q.execute_after <= now()
        order by q.id
        for update skip locked
    );
    return true;
end
$$;

comment on function jobs.put_aside(jobs.pgqueuer, integer) is 'Puts a job aside where its lane is full.';

-- One of a lane has ended: the oldest of those aside comes back. Without effect where there is no lane. A worker that
-- waits for work hears of it where the one that ended is removed, else it finds it at its next look. For functions of
-- ours; whoever says so of several lanes does it in their order.
create or replace function jobs.call_next(p_kind text, p_lane text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    if p_lane is null then
        return;
    end if;
    perform jobs.lock_lane(p_kind, p_lane);
    update jobs.pgqueuer j
    set execute_after = now(), headers = j.headers - 'aside'
    where j.id = (
        select q.id from jobs.pgqueuer q
        where q.status = 'queued' and q.headers ? 'lane' and q.entrypoint = p_kind and q.headers ->> 'lane' = p_lane
            and q.headers ? 'aside'
        order by q.id
        limit 1
        for update skip locked
    );
end
$$;

comment on function jobs.call_next(text, text) is 'The oldest of the jobs aside in a lane comes back.';
