-- Takes on the identity of a user until the end of the transaction, as a trusted backend or superuser. The functions
-- that read and write then see what the user sees. Has no effect on the identity of other logins: their claims are not
-- believed. p_claims: further claims the policies read.
create or replace function sync.act_as(p_user_id text, p_role text default 'authenticated', p_claims jsonb default '{}')
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    -- An assignment costs a tenth of PERFORM, which runs a query.
    v_ok constant boolean := sync_internal.assume(
        p_role, (jsonb_build_object('sub', p_user_id, 'role', p_role) || p_claims)::text
    );
begin
    return;
end
$$;

comment on function sync.act_as(text, text, jsonb) is 'Acts as a user until the end of the transaction.';
grant execute on function sync.act_as(text, text, jsonb)
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
