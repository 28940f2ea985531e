-- Ends a sign-up: makes the user, or of the guest who signed up a user, and signs him in. The gateway has made sure
-- that the browser is the one that signed up or knows the password. PT410 where the link is of no use, also because
-- its address has an account meanwhile. Repeated with the same session it has no further effect.
--
-- A trigger of the application on accounts.users may let invited people in.
create or replace function accounts.gateway_verify(
    p_token_hash bytea, p_session uuid, p_family_hash bytea, p_secret_hash bytea
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_link record;
    v_user uuid;
begin
    select l.* into v_link from accounts.useful_link('sign_up', p_token_hash, p_session) l;
    if v_link.used_by is not null then
        return accounts.open_session(v_link.user_id, p_session, p_family_hash, p_secret_hash);
    end if;
    begin
        if v_link.user_id is not null then
            -- A guest who has become somebody meanwhile stays who he is: the link makes another user.
            perform from accounts.users u where u.id = v_link.user_id for no key update;
            update accounts.users u
            set email = v_link.email, password_hash = v_link.password_hash
            where u.id = v_link.user_id and accounts.is_guest(u.id)
            returning u.id into v_user;
        end if;
        if v_user is null then
            insert into accounts.users (email, password_hash) values (v_link.email, v_link.password_hash)
            returning id into v_user;
        end if;
    exception when unique_violation then
        perform sync_internal.refuse(410, 'link_spent', 'The link was used or is too old; ask for another');
    end;
    perform accounts.close_sessions(v_user, null);
    update accounts.links l set used_by = p_session, user_id = v_user, password_hash = null where l.id = v_link.id;
    perform accounts.drop_links(null, v_link.email);
    return accounts.open_session(v_user, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_verify(bytea, uuid, bytea, bytea) is 'Ends a sign-up.';
grant execute on function accounts.gateway_verify(bytea, uuid, bytea, bytea) to rowcast_gateway;
