-- Looks at a link before it is used: {"passwordHash", "bound"}: the password chosen at sign-up, and whether it is
-- opened in the browser that signed up. Where it is not, an attempt at the password is counted. PT410 where the link
-- is of no use, PT429.
create or replace function accounts.gateway_open_link(
    p_purpose text, p_token_hash bytea, p_browser_hash bytea, p_address text
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
    v_bound boolean;
begin
    perform accounts.take('link_address', p_address);
    select l.* into v_link from accounts.useful_link(p_purpose, p_token_hash, null) l;
    v_bound := coalesce(v_link.browser_hash = p_browser_hash, false);
    if not v_bound and p_purpose = 'sign_up' then
        perform accounts.take('sign_in_pair', v_link.id::text);
    end if;
    return jsonb_build_object('passwordHash', v_link.password_hash, 'bound', v_bound, 'email', v_link.email);
end
$$;

comment on function accounts.gateway_open_link(text, bytea, bytea, text) is 'Looks at a link before it is used.';
grant execute on function accounts.gateway_open_link(text, bytea, bytea, text) to rowcast_gateway;

-- The link with this token, locked. PT410 where there is none, or it is too old, or another session came of it.
create or replace function accounts.useful_link(p_purpose text, p_token_hash bytea, p_session uuid)
returns table (id uuid, email text, user_id uuid, password_hash text, browser_hash bytea, used_by uuid)
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select l.id, l.email, l.user_id, l.password_hash, l.browser_hash, l.used_by
    from accounts.links l
    where l.token_hash = p_token_hash and l.purpose = p_purpose and l.expires_at > now()
        and (l.used_by is null or l.used_by = p_session)
    for update;
    if not found then
        perform sync_internal.refuse(410, 'link_spent', 'The link was used or is too old; ask for another');
    end if;
end
$$;

comment on function accounts.useful_link(text, bytea, uuid) is 'The link with this token, locked.';

-- Removes links that were not used, of a user or of sign-ups with an address. One that is being used this moment
-- stays: waiting for it could be a deadlock, and what it comes to is decided by the row of the user.
create or replace function accounts.drop_links(p_user uuid, p_email text)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    delete from accounts.links l
    where l.id in (
        select o.id
        from accounts.links o
        where (o.user_id = p_user or o.email = p_email and o.purpose = 'sign_up') and o.used_by is null
        for update skip locked
    )
$$;

comment on function accounts.drop_links(uuid, text) is 'Removes links that were not used.';
