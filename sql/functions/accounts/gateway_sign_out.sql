-- Ends the session whose cookie is presented, also with a part of it that was replaced; p_everywhere: all sessions of
-- its user, and every token of his of whatever issuer. Harmless where there is none.
create or replace function accounts.gateway_sign_out(
    p_session uuid, p_family_hash bytea, p_everywhere boolean
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant uuid := (
        select s.user_id from accounts.sessions s where s.id = p_session and s.family_hash = p_family_hash
    );
begin
    if v_user is null then
        return '{}';
    elsif p_everywhere then
        perform sync_internal.note_session_end(v_user::text, null);
    else
        perform from accounts.users u where u.id = v_user for no key update;
        perform accounts.end_session(p_session);
    end if;
    return '{}';
end
$$;

comment on function accounts.gateway_sign_out(uuid, bytea, boolean) is 'Ends the session whose cookie is presented.';
grant execute on function accounts.gateway_sign_out(uuid, bytea, boolean) to rowcast_gateway;
