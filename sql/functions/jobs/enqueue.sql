-- Puts a job into the queue, in the transaction of the caller: it exists if and only if that commits. Gives its number.
--
-- p_kind: one of jobs.kinds. p_payload: what it needs to know; better ids than contents. p_run_at: not before. p_key:
-- of the jobs of a kind with one key there is at most one in the queue; where one waits already, it is left as it is and
-- its number given. It does not begin before this transaction has ended, so it sees what was written here. p_priority:
-- higher goes first; default: that of the kind.
--
-- The job acts as whoever is asking: user, role and claims are kept with it, and policies decide again when it runs. A
-- trusted backend that acts for nobody gives a job that acts as nobody.
--
-- Raises PT400 bad_job for a kind that is not known and a key that is too long, PT413 job_too_large. For functions and
-- triggers of administrators, and service_role: who may start what is said by grants on those. Locks the job that waits.
-- Several keys are best asked for in one order everywhere.
create or replace function jobs.enqueue(
    p_kind text, p_payload jsonb default '{}', p_run_at timestamptz default null, p_key text default null,
    p_priority integer default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return jobs.put(p_kind, p_payload, jobs.kept_claims(sync_internal.claims()), p_run_at, p_key, p_priority);
end
$$;

comment on function jobs.enqueue(text, jsonb, timestamptz, text, integer) is 'Puts a job into the queue.';
grant execute on function jobs.enqueue(text, jsonb, timestamptz, text, integer) to service_role;

-- The same, acting as whoever these claims name; null: nobody. For functions of ours.
create or replace function jobs.put(
    p_kind text, p_payload jsonb, p_claims jsonb, p_run_at timestamptz, p_key text, p_priority integer default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_payload constant bytea := convert_to(coalesce(p_payload, '{}')::text, 'UTF8');
    v_kind jobs.kinds;
    v_lane text;
    v_id bigint;
    v_new boolean;
begin
    select k.* into v_kind from jobs.kinds k where k.kind = p_kind;
    if v_kind.kind is null then
        perform sync_internal.refuse(400, 'bad_job', 'There is no such kind of job');
    elsif length(p_key) > 500 then
        perform sync_internal.refuse(400, 'bad_job', 'The key of a job has at most 500 characters');
    elsif length(v_payload) + coalesce(length(p_claims::text), 0) > sync_internal.setting('max_job_bytes') then
        perform sync_internal.refuse(
            413, 'job_too_large', 'The payload of the job is too large', jsonb_build_object('limit', 'max_job_bytes')
        );
    end if;

    v_lane := p_payload ->> v_kind.lane_key;
    -- Touched rather than left alone: the lock keeps a worker from it until this transaction has ended.
    insert into jobs.pgqueuer as j (entrypoint, payload, headers, priority, execute_after, dedupe_key, status)
    values (
        p_kind, v_payload,
        jsonb_build_object('claims', p_claims, 'key', p_kind || ':' || p_key, 'starts', 0)
        || case when v_lane is null then '{}' else jsonb_build_object('lane', v_lane) end,
        coalesce(p_priority, v_kind.priority), coalesce(p_run_at, now()), p_kind || ':' || p_key, 'queued'
    )
    on conflict (dedupe_key) where status in ('queued', 'picked') and dedupe_key is not null
    do update set updated = now()
    returning j.id, j.xmax::text = '0' into v_id, v_new;

    if v_new and v_kind.watched then
        insert into jobs.runs (job_id, kind, user_id) values (v_id, p_kind, p_claims ->> 'sub');
    end if;
    return v_id;
end
$$;

comment on function jobs.put(text, jsonb, jsonb, timestamptz, text, integer) is 'Puts a job into the queue.';

-- What of claims still counts when the token has expired: who it is. Null for roles that a worker cannot take on.
create or replace function jobs.kept_claims(p_claims jsonb)
returns jsonb
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when coalesce(p_claims ->> 'role', case when p_claims ? 'sub' then 'authenticated' end)
            in ('anon', 'authenticated')
            then p_claims - array['iat', 'exp', 'nbf', 'jti', 'rowcast_session']
                || jsonb_build_object('role', coalesce(p_claims ->> 'role', 'authenticated'))
    end
$$;

comment on function jobs.kept_claims(jsonb) is 'What of claims still counts later.';
