-- Replaces the changing part of a session's cookie and gives the claims of the next token. p_next_hash: of the part
-- that the gateway made from the present one and p_salt.
--
-- Gives {"salt", "claims", "user", "seconds"}. Where the part was replaced already, within a minute (setting
-- refresh_grace_seconds), salt is the one that was used then: with it the gateway makes the same successor again.
-- Later it is a part used twice, and nobody knows by whom: the session ends. That has to be committed, hence
-- {"refused": code} and no error.
create or replace function accounts.gateway_refresh(
    p_session uuid, p_family_hash bytea, p_secret_hash bytea, p_next_hash bytea, p_salt bytea
)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_session record;
    v_user uuid := (select s.user_id from accounts.sessions s where s.id = p_session);
begin
    -- Users are locked before their sessions, everywhere.
    perform from accounts.users u where u.id = v_user for no key update;
    select s.* into v_session from accounts.sessions s where s.id = p_session and s.family_hash = p_family_hash for update;
    if not found then
        return '{"refused": "session_ended"}';
    end if;
    if exists (select from sync_internal.session_ends e where e.user_id = v_user::text and e.disabled) then
        return '{"refused": "disabled"}';
    end if;
    if v_session.expires_at <= now() then
        perform accounts.end_session(p_session);
        return '{"refused": "session_ended"}';
    end if;
    if v_session.secret_hash = p_secret_hash then
        update accounts.sessions s
        set secret_hash = p_next_hash, before_hash = p_secret_hash, salt = p_salt, rotated_at = clock_timestamp(),
            expires_at = least(
                s.created_at + sync_internal.setting('session_days') * interval '1 day',
                now() + sync_internal.setting('session_idle_days') * interval '1 day'
            )
        where s.id = p_session;
        return accounts.signed_in(p_session) || jsonb_build_object('salt', encode(p_salt, 'hex'));
    elsif v_session.before_hash = p_secret_hash
        and v_session.rotated_at > clock_timestamp() - sync_internal.setting('refresh_grace_seconds') * interval '1 s' then
        return accounts.signed_in(p_session) || jsonb_build_object('salt', encode(v_session.salt, 'hex'));
    end if;
    perform accounts.end_session(p_session);
    return '{"refused": "session_ended"}';
end
$$;

comment on function accounts.gateway_refresh(uuid, bytea, bytea, bytea, bytea) is 'Replaces a session''s cookie.';
grant execute on function accounts.gateway_refresh(uuid, bytea, bytea, bytea, bytea) to rowcast_gateway;

-- Ends one session and tells the relays.
create or replace function accounts.end_session(p_session uuid)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user uuid;
begin
    delete from accounts.sessions s where s.id = p_session returning s.user_id into v_user;
    if found then
        perform sync_internal.tell_session_end(v_user::text);
    end if;
end
$$;

comment on function accounts.end_session(uuid) is 'Ends one session and tells the relays.';
