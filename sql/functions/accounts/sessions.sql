-- What the doors share: addresses, sessions, and what a browser is told.

-- A user's id as uuid; null for the name of a user of another issuer.
create or replace function accounts.user_id(p_user_id text)
returns uuid
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when sync_internal.is_any_uuid(p_user_id) then p_user_id::uuid
    end
$$;

comment on function accounts.user_id(text) is 'A user''s id as uuid; null for the name of a user of another issuer.';

-- An address in the form it is kept and compared in: trimmed, NFC, lower case. PT400 for what is none.
create or replace function accounts.normal_email(p_email text)
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_email constant text := lower(normalize(btrim(p_email), nfc));
begin
    if v_email is null or octet_length(v_email) > 254
        or v_email !~ '^[^@[:space:][:cntrl:]<>(),;:"\\]+@[^@[:space:][:cntrl:]<>(),;:"\\]+$'
        or split_part(v_email, '@', 2) !~ '^[^.]+(\.[^.]+)+$' then
        perform sync_internal.refuse(400, 'bad_email', 'This is no e-mail address', '{"key": "email"}');
    end if;
    return v_email;
end
$$;

comment on function accounts.normal_email(text) is 'An address in the form it is kept in.';

-- Begins a session of a user and gives what the browser is told. Locks the user, so that an end of his sessions waits
-- or is seen. Of more than user_sessions the one that was refreshed longest ago ends. PT403 where he is disabled.
-- Repeated with the same id it has no further effect.
create or replace function accounts.open_session(p_user uuid, p_session uuid, p_family_hash bytea, p_secret_hash bytea)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from accounts.users u where u.id = p_user for no key update;
    if exists (select from sync_internal.session_ends e where e.user_id = p_user::text and e.disabled) then
        perform sync_internal.refuse(403, 'disabled', 'This user is disabled');
    end if;
    insert into accounts.sessions as s (id, user_id, family_hash, secret_hash, expires_at)
    values (
        p_session, p_user, p_family_hash, p_secret_hash,
        now() + least(sync_internal.setting('session_days'), sync_internal.setting('session_idle_days')) * interval '1 day'
    )
    on conflict (id) do nothing;
    if found then
        delete from accounts.sessions s
        where s.id in (
            select o.id
            from accounts.sessions o
            where o.user_id = p_user and o.id <> p_session
            order by o.rotated_at desc, o.id
            offset sync_internal.setting('user_sessions') - 1
        );
        if found then
            perform sync_internal.tell_session_end(p_user::text);
        end if;
    end if;
    return accounts.signed_in(p_session);
end
$$;

comment on function accounts.open_session(uuid, uuid, bytea, bytea) is 'Begins a session of a user.';

-- {"claims", "user", "seconds"} of a session: the claims of its next token, which is of the database's clock, who it
-- is, and for how many seconds a browser may keep the cookie.
create or replace function accounts.signed_in(p_session uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_session record;
    v_user jsonb;
    v_now timestamptz;
begin
    select s.* into strict v_session from accounts.sessions s where s.id = p_session;
    v_user := accounts.describe(v_session.user_id);
    -- Never of the very moment in which his sessions ended.
    v_now := greatest(clock_timestamp(), (
        select max(e.ended_at) + interval '1 microsecond'
        from sync_internal.session_ends e
        where e.user_id in (v_session.user_id::text, '') and e.ended_at < clock_timestamp() + interval '1 s'
    ));
    return jsonb_build_object(
        'claims', jsonb_strip_nulls(jsonb_build_object(
            'sub', v_session.user_id,
            'role', 'authenticated',
            'email', v_user -> 'email',
            'email_verified', case when v_user ? 'email' then true end,
            'is_anonymous', v_user -> 'guest',
            'rowcast_session', p_session,
            'iat', extract(epoch from v_now),
            'exp', floor(extract(epoch from least(
                v_now + sync_internal.setting('token_seconds') * interval '1 s', v_session.expires_at
            )))
        )),
        'user', v_user,
        'seconds', floor(extract(epoch from v_session.expires_at - v_now))
    );
end
$$;

comment on function accounts.signed_in(uuid) is 'What a browser is told of its session.';

-- Whether nothing but his sessions makes a user: he has neither a verified address nor a provider. Whoever acts on it
-- locks the user first, in a statement before.
create or replace function accounts.is_guest(p_user uuid)
returns boolean
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from accounts.users u where u.id = p_user and u.email is null)
        and not exists (select from accounts.identities i where i.user_id = p_user)
$$;

comment on function accounts.is_guest(uuid) is 'Whether nothing but his sessions makes a user.';

-- A user as he himself may see him.
create or replace function accounts.describe(p_user uuid)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'id', u.id,
        'email', u.email,
        'guest', accounts.is_guest(u.id),
        'hasPassword', u.password_hash is not null,
        'providers', (
            select coalesce(jsonb_agg(distinct i.provider), '[]') from accounts.identities i where i.user_id = u.id
        ),
        'createdAt', to_char(u.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
    ))
    from accounts.users u
    where u.id = p_user
$$;

comment on function accounts.describe(uuid) is 'A user as he himself may see him.';

-- Ends sessions of a user but one, and tells the relays; null: all of them.
create or replace function accounts.close_sessions(p_user uuid, p_but uuid)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from accounts.sessions s where s.user_id = p_user and s.id is distinct from p_but;
    if found then
        perform sync_internal.tell_session_end(p_user::text);
    end if;
end
$$;

comment on function accounts.close_sessions(uuid, uuid) is 'Ends sessions of a user but one.';

-- The user of a session whose cookie is presented, without using it up; null where it does not count. It may be the
-- one before, for as long as that may be refreshed.
create or replace function accounts.session_user_id(p_session uuid, p_family_hash bytea, p_secret_hash bytea)
returns uuid
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.user_id
    from accounts.sessions s
    where s.id = p_session and s.family_hash = p_family_hash and s.expires_at > now()
        and (
            s.secret_hash = p_secret_hash
            or s.before_hash = p_secret_hash
            and s.rotated_at > now() - sync_internal.setting('refresh_grace_seconds') * interval '1 s'
        )
        and not exists (select from sync_internal.session_ends e where e.user_id = s.user_id::text and e.disabled)
$$;

comment on function accounts.session_user_id(uuid, bytea, bytea) is 'The user of a session whose cookie is presented.';

-- Puts a mail into the outbox, in the commit of what it tells of, and a job that sends it. p_id: of the link it carries,
-- if one.
create or replace function accounts.post(
    p_kind text, p_recipient text, p_details jsonb default '{}', p_id uuid default null,
    p_lasts interval default '1 day'
)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id constant uuid := coalesce(p_id, gen_random_uuid());
begin
    insert into accounts.mails (id, kind, recipient, details, expires_at)
    values (v_id, p_kind, p_recipient, p_details, now() + p_lasts)
    on conflict (id) do nothing;
    if found then
        -- What somebody waits for is not behind ten thousand others.
        perform jobs.put(
            'mail', jsonb_build_object('id', v_id), null, now(), v_id::text,
            case when p_kind in ('digest', 'invitation') then 0 else 10 end
        );
    end if;
end
$$;

comment on function accounts.post(text, text, jsonb, uuid, interval) is 'Puts a mail into the outbox.';
