-- Makes a guest and signs him in. PT429. Repeated with the same session it has no further effect.
create or replace function accounts.gateway_guest(
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
    v_user uuid := (select s.user_id from accounts.sessions s where s.id = p_session);
begin
    if v_user is null then
        perform accounts.take('guest_address', p_address);
        insert into accounts.users default values returning id into v_user;
    end if;
    return accounts.open_session(v_user, p_session, p_family_hash, p_secret_hash);
end
$$;

comment on function accounts.gateway_guest(text, uuid, bytea, bytea) is 'Makes a guest and signs him in.';
grant execute on function accounts.gateway_guest(text, uuid, bytea, bytea) to rowcast_gateway;
