-- From the claims that the gateway's doors are given to the identity they name.

-- The role of claims: their own, authenticated where they name none, anon where there are none. PT401 for any other
-- than these two, and where the session has ended (sync.end_sessions).
create or replace function sync_internal.claimed_role(p_claims text)
returns text
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_claims constant jsonb := p_claims::jsonb;
    v_role constant text := coalesce(
        v_claims ->> 'role', case when p_claims is null then 'anon' else 'authenticated' end
    );
begin
    if v_role not in ('anon', 'authenticated') then
        perform sync_internal.refuse(401, 'unauthorized', 'The token''s role is not served here');
    elsif not sync_internal.session_counts(v_claims) then
        perform sync_internal.refuse(401, 'unauthorized', 'The session has ended; sign in again');
    end if;
    return v_role;
end
$$;

comment on function sync_internal.claimed_role(text) is 'The role that claims name.';

-- Takes on the identity that claims name, until the end of the transaction, and gives its role. p_role: what
-- claimed_role has just said of them, so that they are not looked at twice.
create or replace function sync_internal.assume_claims(p_claims text, p_role text default null)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_role constant text := coalesce(p_role, sync_internal.claimed_role(p_claims));
    v_ok boolean;
begin
    v_ok := sync_internal.assume(v_role, coalesce(p_claims, '{"role": "anon"}'));
    return v_role;
end
$$;

comment on function sync_internal.assume_claims(text, text) is 'Takes on the identity that claims name.';
grant execute on function sync_internal.claimed_role(text), sync_internal.assume_claims(text, text) to rowcast_gateway;
