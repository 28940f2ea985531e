-- Ends the sessions of a user: no token of his that was issued up to now counts any more. Tokens are of any
-- issuer and
-- carry no name that could be crossed out, so the moment is kept, and the claim iat of each token compared with it.
--
-- From the commit on every door of the gateway refuses such tokens, PT401, and the relays, who hear of it through the
-- feed, close his sockets. Who signs in again afterwards is not concerned, nor are database logins and act_as. Clock
-- time, since a token may have been issued after this transaction began. Definer: the table is private.
create or replace function sync.end_sessions(p_user_id text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.note_session_end(sync_internal.must_name_user(p_user_id), null);
end
$$;

comment on function sync.end_sessions(text) is 'Ends all sessions a user has now.';
grant execute on function sync.end_sessions(text) to service_role;

-- A user's id in one spelling: a uuid in lower case, as auth.uid() reads it, whatever the token or the caller writes.
create or replace function sync_internal.user_key(p_user_id text)
returns text
language sql
immutable
parallel safe
security invoker
as $$
    select case
        when sync_internal.is_any_uuid(p_user_id) then lower(p_user_id)
        else p_user_id
    end
$$;

comment on function sync_internal.user_key(text) is 'A user''s id in one spelling.';
grant execute on function sync_internal.user_key(text) to rowcast_gateway;

-- Notes the end of sessions and tells the relays. p_disabled: whether the user is disabled from now on; null: as
-- he was.
-- The name '' stands for everybody. Accounts: whoever is signing in meanwhile has the row of the user locked, and is
-- waited for, so that none of his sessions outlives this.
create or replace function sync_internal.note_session_end(p_user_id text, p_disabled boolean)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := sync_internal.user_key(p_user_id);
begin
    if v_user = '' then
        -- Whoever is signing in is waited for, too. Links count as keys: their tokens are made with the gateway's.
        lock table accounts.sessions in exclusive mode;
        delete from accounts.sessions s;
        delete from accounts.links l;
    else
        perform from accounts.users u where u.id = accounts.user_id(v_user) for no key update;
        delete from accounts.sessions s where s.user_id = accounts.user_id(v_user);
    end if;
    insert into sync_internal.session_ends as e (user_id, ended_at, disabled)
    values (v_user, clock_timestamp(), coalesce(p_disabled, false))
    on conflict (user_id) do update
    set ended_at = greatest(e.ended_at, excluded.ended_at), disabled = coalesce(p_disabled, e.disabled);
    perform sync_internal.tell_session_end(v_user);
end
$$;

comment on function sync_internal.note_session_end(text, boolean) is 'Notes the end of sessions and tells the relays.';

-- Has the relays look which sockets of a user still count; '': of everybody.
create or replace function sync_internal.tell_session_end(p_user_id text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_none text;
begin
    insert into sync_internal.changes (slot, table_name, kind, patch)
    values (
        sync_internal.feed_slot(), 'sync_internal.session_ends', 'session', json_build_object('user', p_user_id)
    );
    -- As the capture triggers do.
    if current_setting('synchronous_commit') = 'off' then
        v_none := set_config('synchronous_commit', 'local', true);
    end if;
    if pg_sequence_last_value('sync_internal.bell') is distinct from 0 then
        v_none := pg_notify('rowcast', '');
    end if;
end
$$;

comment on function sync_internal.tell_session_end(text) is 'Has the relays look which sockets of a user still count.';

-- Refuses what is no user's id.
create or replace function sync_internal.must_name_user(p_user_id text)
returns text
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    if coalesce(p_user_id, '') = '' then
        raise exception using errcode = '22023', message = 'A user is needed', hint = 'It is the claim sub of his tokens.';
    end if;
    return p_user_id;
end
$$;

comment on function sync_internal.must_name_user(text) is 'Refuses what is no user''s id.';

-- Whether a token with these claims still counts. One that does not say when it was issued, or that says it was
-- issued
-- in the future, is taken for an old one. A token of ours counts while its session is there. Definer: the tables are
-- private.
create or replace function sync_internal.session_counts(p_claims jsonb)
returns boolean
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := sync_internal.user_key(p_claims ->> 'sub');
    v_session constant text := p_claims ->> 'rowcast_session';
    v_ended_at timestamptz;
    v_disabled boolean;
begin
    if v_session is not null then
        if not sync_internal.is_uuid(v_session)
            or not exists (
                select from accounts.sessions s where s.id = v_session::uuid and s.user_id::text = v_user
            ) then
            return false;
        end if;
    end if;
    select max(e.ended_at), bool_or(e.disabled) into v_ended_at, v_disabled
    from sync_internal.session_ends e
    where e.user_id in (v_user, '');
    if v_ended_at is null then
        return true;
    end if;
    return not v_disabled and jsonb_typeof(p_claims -> 'iat') is not distinct from 'number'
        and (p_claims ->> 'iat')::numeric > extract(epoch from v_ended_at)
        -- Clocks may differ a little.
        and (p_claims ->> 'iat')::numeric < extract(epoch from clock_timestamp()) + 300;
end
$$;

comment on function sync_internal.session_counts(jsonb) is 'Whether a token with these claims still counts.';
grant execute on function sync_internal.session_counts(jsonb) to rowcast_gateway;
