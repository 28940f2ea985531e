-- Sign-in in two steps, since PostgreSQL does not verify passwords: the attempt is counted and the hash given out;
-- then, with the hash that was verified, the session is made and the attempt taken back. A gateway killed between
-- them has used up an attempt.

-- {"passwordHash"}, null where nobody signs in by this address. p_development: whether demo users may. PT400
-- bad_email, PT429.
create or replace function accounts.gateway_begin_sign_in(p_email text, p_address text, p_development boolean)
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
    perform accounts.take('sign_in_account', v_email);
    perform accounts.take('sign_in_pair', v_email || ' ' || p_address);
    perform accounts.take('sign_in_address', p_address);
    return jsonb_build_object('passwordHash', (
        select u.password_hash from accounts.users u where u.email = v_email and (p_development or not u.is_demo)
    ));
end
$$;

comment on function accounts.gateway_begin_sign_in(text, text, boolean)
is 'Counts an attempt to sign in and gives the hash.';
grant execute on function accounts.gateway_begin_sign_in(text, text, boolean) to rowcast_gateway;

-- p_password_hash: the one that was verified; null: none was. p_new_hash: the same password hashed as is usual now,
-- where that has changed. PT401 wrong_credentials also where the password was changed meanwhile; PT403 disabled.
create or replace function accounts.gateway_sign_in(
    p_email text, p_address text, p_password_hash text, p_new_hash text, p_session uuid, p_family_hash bytea,
    p_secret_hash bytea
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
    perform accounts.give_back('sign_in_account', v_email);
    perform accounts.give_back('sign_in_pair', v_email || ' ' || p_address);
    perform accounts.give_back('sign_in_address', p_address);
    return accounts.open_session(v_user, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_sign_in(text, text, text, text, uuid, bytea, bytea)
is 'Signs in, the password verified.';
grant execute on function accounts.gateway_sign_in(text, text, text, text, uuid, bytea, bytea)
to rowcast_gateway;
