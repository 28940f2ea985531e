-- {"user"} of claims whose token was verified; null where he has no account here. PT401 where the session has ended.
create or replace function accounts.gateway_me(p_claims text)
returns jsonb
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role constant text := sync_internal.claimed_role(p_claims);
begin
    return jsonb_build_object(
        'user', case when v_role = 'authenticated' then accounts.describe(accounts.user_id(p_claims::jsonb ->> 'sub')) end
    );
end
$$;

comment on function accounts.gateway_me(text) is 'The user of claims whose token was verified.';
grant execute on function accounts.gateway_me(text) to rowcast_gateway;
