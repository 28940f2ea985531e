-- How often something may be tried. Names are rows of accounts.limits; keys are hashed, so that no table keeps the
-- addresses that were tried.

-- Counts an attempt, at most so many at once and so many an hour. PT429 with the seconds until the next. Keeps its
-- row locked to the end of the transaction.
create or replace function accounts.take(p_name text, p_key text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key constant text := encode(sha256(convert_to(p_key, 'UTF8')), 'hex');
    v_now constant timestamptz := clock_timestamp();
    v_burst double precision;
    v_rate double precision;
    v_level double precision;
begin
    select l.burst, l.per_hour / 3600.0 into v_burst, v_rate from accounts.limits l where l.name = p_name;
    if coalesce(v_burst, 0) = 0 then
        return;
    end if;
    insert into accounts.buckets as b (name, key, level, at) values (p_name, v_key, v_burst - 1, v_now)
    on conflict (name, key) do update
    set level = accounts.level_now(b.level, b.at, v_burst, v_rate, v_now) - 1, at = greatest(b.at, v_now)
    where accounts.level_now(b.level, b.at, v_burst, v_rate, v_now) >= 1;
    if found then
        return;
    end if;
    select accounts.level_now(b.level, b.at, v_burst, v_rate, v_now) into v_level
    from accounts.buckets b
    where b.name = p_name and b.key = v_key;
    perform sync_internal.refuse(
        429, 'rate_limited', 'Too many attempts; try again later',
        jsonb_build_object('retryAfter', greatest(1, ceil((1 - coalesce(v_level, 0)) / v_rate)))
    );
end
$$;

comment on function accounts.take(text, text) is 'Counts an attempt.';

create or replace function accounts.level_now(
    p_level double precision, p_at timestamptz, p_burst double precision, p_rate double precision, p_now timestamptz
)
returns double precision
language sql
immutable
parallel safe
security invoker
as $$
    select least(p_burst, p_level + greatest(0, extract(epoch from p_now - p_at)::double precision) * p_rate)
$$;

comment on function accounts.level_now(double precision, timestamptz, double precision, double precision, timestamptz)
is 'How many attempts are left now.';

-- Takes an attempt back that was none: the password was right.
create or replace function accounts.give_back(p_name text, p_key text)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update accounts.buckets b
    set level = b.level + 1
    where b.name = p_name and b.key = encode(sha256(convert_to(p_key, 'UTF8')), 'hex')
$$;

comment on function accounts.give_back(text, text) is 'Takes an attempt back that was none.';

-- Changes a limit: so many attempts at once (0: any number), and so many an hour.
create or replace function accounts.set_limit(p_name text, p_burst integer, p_per_hour integer)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    update accounts.limits l set burst = p_burst, per_hour = p_per_hour where l.name = p_name;
    if not found then
        raise exception using errcode = '22023', message = format('There is no limit %s', p_name),
            hint = 'See the table accounts.limits.';
    end if;
end
$$;

comment on function accounts.set_limit(text, integer, integer) is 'Changes how often something may be tried.';
