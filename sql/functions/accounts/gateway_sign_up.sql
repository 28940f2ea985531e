-- Sign-up in two steps, as sign-in: what costs the gateway a hash is counted before.

-- Counts a sign-up. PT400 bad_email, PT429.
create or replace function accounts.gateway_begin_sign_up(p_email text, p_address text)
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
    perform accounts.take('sign_up_address', p_address);
    perform accounts.take('mail_recipient', v_email);
    return '{}';
end
$$;

comment on function accounts.gateway_begin_sign_up(text, text) is 'Counts a sign-up.';
grant execute on function accounts.gateway_begin_sign_up(text, text) to rowcast_gateway;

-- Begins a sign-up: a mail with a link, to a new address; to one that has an account, a mail that says so. The answer
-- and the work are the same. p_link: the id of the link; the token's hash, since the token itself is made from the id
-- when the mail is sent. p_browser_hash: of the cookie of the browser that asks. p_session and its hashes: of the
-- guest who signs up, if one. PT400 bad_email. Repeated with the same link it has no further effect.
create or replace function accounts.gateway_sign_up(
    p_email text, p_password_hash text, p_link uuid, p_token_hash bytea, p_browser_hash bytea,
    p_session uuid default null, p_family_hash bytea default null, p_secret_hash bytea default null
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
    v_lasts constant interval := sync_internal.setting('sign_up_link_minutes') * interval '1 minute';
    v_taken constant boolean := exists (select from accounts.users u where u.email = v_email);
begin
    insert into accounts.links (id, purpose, token_hash, email, user_id, password_hash, browser_hash, expires_at)
    values (
        p_link, 'sign_up', p_token_hash, v_email,
        (
            select u.id from accounts.users u
            where u.id = accounts.session_user_id(p_session, p_family_hash, p_secret_hash) and accounts.is_guest(u.id)
        ),
        p_password_hash, p_browser_hash, case when v_taken then now() else now() + v_lasts end
    )
    on conflict (id) do nothing;
    perform accounts.post(case when v_taken then 'account_exists' else 'sign_up' end, v_email, '{}', p_link, v_lasts);
    return '{}';
end
$$;

comment on function accounts.gateway_sign_up(text, text, uuid, bytea, bytea, uuid, bytea, bytea)
is 'Begins a sign-up.';
grant execute on function accounts.gateway_sign_up(text, text, uuid, bytea, bytea, uuid, bytea, bytea)
to rowcast_gateway;
