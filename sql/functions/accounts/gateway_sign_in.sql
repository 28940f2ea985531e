-- Sign-in in two steps, since PostgreSQL does not verify passwords: the attempt is counted and the hash given out;
-- then, with the hash that was verified, the session is made and the attempt taken back. A gateway killed between
-- them has used up an attempt.

-- What an attempt counts against. A browser in which this user signed in before (p_known: the user, p_browser: its name,
-- both from a cookie the gateway has made) counts by itself, so that strangers cannot lock him out of it.
create or replace function accounts.sign_in_limits(p_email text, p_address text, p_known uuid, p_browser text)
returns table (name text, key text)
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from accounts.users u where u.id = p_known and u.email = p_email) then
        return query values ('sign_in_pair', p_email || ' ' || p_browser), ('sign_in_address', p_address);
    else
        return query values
        ('sign_in_account', p_email), ('sign_in_pair', p_email || ' ' || p_address), ('sign_in_address', p_address);
    end if;
end
$$;

comment on function accounts.sign_in_limits(text, text, uuid, text) is 'What an attempt to sign in counts against.';

-- {"passwordHash"}, null where nobody signs in by this address. p_development: whether demo users may. p_known,
-- p_browser: see accounts.sign_in_limits. PT400 bad_email, PT429.
create or replace function accounts.gateway_begin_sign_in(
    p_email text, p_address text, p_development boolean, p_known uuid default null, p_browser text default null
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
begin
    perform accounts.take(l.name, l.key) from accounts.sign_in_limits(v_email, p_address, p_known, p_browser) l;
    return jsonb_build_object('passwordHash', (
        select u.password_hash from accounts.users u where u.email = v_email and (p_development or not u.is_demo)
    ));
end
$$;

comment on function accounts.gateway_begin_sign_in(text, text, boolean, uuid, text)
is 'Counts an attempt to sign in and gives the hash.';
grant execute on function accounts.gateway_begin_sign_in(text, text, boolean, uuid, text) to rowcast_gateway;

-- p_password_hash: the one that was verified; null: none was. p_new_hash: the same password hashed as is usual now,
-- where that has changed. PT401 wrong_credentials also where the password was changed meanwhile; PT403 disabled.
create or replace function accounts.gateway_sign_in(
    p_email text, p_address text, p_password_hash text, p_new_hash text, p_session uuid, p_family_hash bytea,
    p_secret_hash bytea, p_known uuid default null, p_browser text default null
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
    v_user uuid;
begin
    select u.id into v_user
    from accounts.users u
    where u.email = v_email and u.password_hash = p_password_hash
    for no key update;
    if v_user is null then
        perform sync_internal.refuse(401, 'wrong_credentials', 'Address or password is wrong');
    end if;
    if p_new_hash is not null then
        update accounts.users u set password_hash = p_new_hash where u.id = v_user;
    end if;
    perform accounts.give_back(l.name, l.key) from accounts.sign_in_limits(v_email, p_address, p_known, p_browser) l;
    return accounts.open_session(v_user, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_sign_in(text, text, text, text, uuid, bytea, bytea, uuid, text)
is 'Signs in, the password verified.';
grant execute on function accounts.gateway_sign_in(text, text, text, text, uuid, bytea, bytea, uuid, text)
to rowcast_gateway;
