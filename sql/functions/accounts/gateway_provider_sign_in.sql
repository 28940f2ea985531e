-- Signs in whom an OpenID Connect provider has named, its token verified. In this order: the user this name belongs
-- to; the user with this address, where the provider says it is verified (every address here is, so nobody can have
-- put it there before its owner); the guest of p_guest, who becomes the user; a new user. An address that is not
-- verified is not kept. Gives {"claims", "user", "seconds"}. PT403 disabled, PT429.
create or replace function accounts.gateway_provider_sign_in(
    p_provider text, p_issuer text, p_subject text, p_email text, p_email_verified boolean, p_guest uuid,
    p_address text, p_session uuid, p_family_hash bytea, p_secret_hash bytea
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_email constant text := case
        when p_email_verified and p_email is not null then accounts.normal_email(p_email)
    end;
    v_user uuid;
begin
    perform accounts.take('link_address', p_address);
    select i.user_id into v_user from accounts.identities i where i.issuer = p_issuer and i.subject = p_subject;
    if v_user is null then
        begin
            select u.id into v_user from accounts.users u where u.email = v_email and not u.is_demo for no key update;
            if v_user is not null then
                perform accounts.post('provider_linked', v_email, jsonb_build_object('provider', p_provider));
            elsif p_guest is not null then
                perform from accounts.users u
                where u.id = (select s.user_id from accounts.sessions s where s.id = p_guest)
                for no key update;
                -- The session he was a guest in is the proof; it is still there, and he still a guest.
                select s.user_id into v_user
                from accounts.sessions s
                where s.id = p_guest and s.expires_at > now() and accounts.is_guest(s.user_id);
                update accounts.users u set email = v_email where u.id = v_user;
                perform accounts.close_sessions(v_user, null);
            end if;
            if v_user is null then
                insert into accounts.users (email) values (v_email) returning id into v_user;
            end if;
            insert into accounts.identities (issuer, subject, user_id, provider)
            values (p_issuer, p_subject, v_user, p_provider);
        exception when unique_violation then
            -- The same name or address, at the same time.
            perform sync_internal.refuse(503, 'retry', 'Busy with another change; try the same again', '{"retryAfter": 1}');
        end;
        perform accounts.drop_links(null, v_email);
    end if;
    perform accounts.give_back('link_address', p_address);
    return accounts.open_session(v_user, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_provider_sign_in(
    text, text, text, text, boolean, uuid, text, uuid, bytea, bytea
) is 'Signs in whom a provider has named.';
grant execute on function accounts.gateway_provider_sign_in(
    text, text, text, text, boolean, uuid, text, uuid, bytea, bytea
) to rowcast_gateway;

-- {"guest": session} where the cookie is a guest's, else {}: what a sign-in by a provider remembers on its way.
create or replace function accounts.gateway_guest_session(p_session uuid, p_family_hash bytea, p_secret_hash bytea)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when accounts.is_guest(accounts.session_user_id(p_session, p_family_hash, p_secret_hash))
            then jsonb_build_object('guest', p_session)
        else '{}'
    end
$$;

comment on function accounts.gateway_guest_session(uuid, bytea, bytea) is 'Whether a cookie is a guest''s.';
grant execute on function accounts.gateway_guest_session(uuid, bytea, bytea) to rowcast_gateway;
