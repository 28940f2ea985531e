-- Which of these claims still count, in order; null, nobody's, always do.
create or replace function sync.gateway_sessions(p_claims text[])
returns boolean[]
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(array_agg(sync_internal.session_counts(c.claims::jsonb) order by c.n), '{}')
    from unnest(p_claims) with ordinality c (claims, n)
$$;

comment on function sync.gateway_sessions(text[]) is 'Which of these claims still count.';
grant execute on function sync.gateway_sessions(text[]) to rowcast_gateway;
