-- Changing and resetting a password.

-- {"passwordHash", "email"} of whoever presents the cookie of a session, to verify the current password with; an
-- attempt is counted. PT401, PT429.
create or replace function accounts.gateway_begin_change(p_session uuid, p_family_hash bytea, p_secret_hash bytea)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant uuid := accounts.session_user_id(p_session, p_family_hash, p_secret_hash);
begin
    if v_user is null then
        perform sync_internal.refuse(401, 'session_ended', 'The session has ended; sign in again');
    end if;
    perform accounts.take('password_user', v_user::text);
    return (
        select jsonb_build_object('passwordHash', u.password_hash, 'email', u.email)
        from accounts.users u
        where u.id = v_user
    );
end
$$;

comment on function accounts.gateway_begin_change(uuid, bytea, bytea) is 'Counts an attempt to change a password.';
grant execute on function accounts.gateway_begin_change(uuid, bytea, bytea) to rowcast_gateway;

-- Sets a password; p_old_hash is the one that was verified. All other sessions of the user end. PT401 where the
-- session has ended, PT403 wrong_credentials where the password is another by now, or there is none: the first is set
-- by a reset.
create or replace function accounts.gateway_change_password(
    p_session uuid, p_family_hash bytea, p_secret_hash bytea, p_old_hash text, p_new_hash text
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user uuid := accounts.session_user_id(p_session, p_family_hash, p_secret_hash);
    v_email text;
begin
    perform from accounts.users u where u.id = v_user for no key update;
    -- Again: his sessions may have ended while this waited.
    v_user := accounts.session_user_id(p_session, p_family_hash, p_secret_hash);
    if v_user is null then
        perform sync_internal.refuse(401, 'session_ended', 'The session has ended; sign in again');
    end if;
    update accounts.users u
    set password_hash = p_new_hash
    where u.id = v_user and u.password_hash in (p_old_hash, p_new_hash)
    returning u.email into v_email;
    if v_email is null then
        perform sync_internal.refuse(403, 'wrong_credentials', 'The current password is wrong');
    end if;
    perform accounts.give_back('password_user', v_user::text);
    perform accounts.drop_links(v_user, null);
    perform accounts.close_sessions(v_user, p_session);
    perform accounts.post('password_changed', v_email);
    return accounts.signed_in(p_session);
end
$$;

comment on function accounts.gateway_change_password(uuid, bytea, bytea, text, text) is 'Sets another password.';
grant execute on function accounts.gateway_change_password(uuid, bytea, bytea, text, text) to rowcast_gateway;

-- Mails a link to set a password with, where the address has an account; the answer is the same where it has
-- none, and where it was asked too often: then a link of some minutes ago is on its way, and counts. So strangers who
-- ask in somebody's name do not keep him out. PT400, PT429.
create or replace function accounts.gateway_request_reset(
    p_email text, p_link uuid, p_token_hash bytea, p_address text
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_email constant text := accounts.normal_email(p_email);
    v_user constant uuid := (select u.id from accounts.users u where u.email = v_email and not u.is_demo);
    v_lasts constant interval := sync_internal.setting('reset_link_minutes') * interval '1 minute';
begin
    perform accounts.take('sign_up_address', p_address);
    begin
        perform accounts.take('reset_recipient', v_email);
    exception when sqlstate 'PT429' then
        return '{}';
    end;
    -- Where there is no user a link that leads nowhere, and a mail that is too old to be sent and goes with it: the work
    -- is the same.
    insert into accounts.links (id, purpose, token_hash, email, user_id, expires_at)
    values (p_link, 'reset', p_token_hash, v_email, v_user, case when v_user is null then now() else now() + v_lasts end)
    on conflict (id) do nothing;
    perform accounts.post(
        'reset', v_email, '{}', p_link, case when v_user is null then interval '-29 days' else v_lasts end
    );
    return '{}';
end
$$;

comment on function accounts.gateway_request_reset(text, uuid, bytea, text) is 'Mails a link to set a password with.';
grant execute on function accounts.gateway_request_reset(text, uuid, bytea, text) to rowcast_gateway;

-- Sets a password by a link, ends every session and token of the user, and signs him in. PT410 where the link is of
-- no use. Repeated with the same session it has no further effect.
create or replace function accounts.gateway_reset(
    p_token_hash bytea, p_new_hash text, p_session uuid, p_family_hash bytea, p_secret_hash bytea
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
begin
    select l.* into v_link from accounts.useful_link('reset', p_token_hash, p_session) l;
    if v_link.used_by is null then
        update accounts.users u set password_hash = p_new_hash where u.id = v_link.user_id and u.email = v_link.email;
        if not found then
            perform sync_internal.refuse(410, 'link_spent', 'The link was used or is too old; ask for another');
        end if;
        update accounts.links l set used_by = p_session where l.id = v_link.id;
        perform accounts.drop_links(v_link.user_id, null);
        -- Whoever guessed at the old password has not used up the owner's attempts at the new one.
        delete from accounts.buckets b
        where b.name = 'sign_in_account' and b.key = encode(sha256(convert_to(v_link.email, 'UTF8')), 'hex');
        perform sync_internal.note_session_end(v_link.user_id::text, null);
        perform accounts.post('password_changed', v_link.email);
    end if;
    return accounts.open_session(v_link.user_id, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_reset(bytea, text, uuid, bytea, bytea) is 'Sets a password by a link.';
grant execute on function accounts.gateway_reset(bytea, text, uuid, bytea, bytea) to rowcast_gateway;
