-- Raises a refusal: SQLSTATE PT + HTTP status, the message for people, and as DETAIL a JSON object with the code and
-- what is said of the place. Nothing of the stored data may be put into it.
create or replace function sync_internal.refuse(
    p_status integer, p_code text, p_message text, p_detail jsonb default '{}'
)
returns void
language plpgsql
immutable
parallel safe
security invoker
as $$
begin
    raise exception using
        errcode = 'PT' || p_status,
        message = p_message,
        detail = (jsonb_build_object('code', p_code) || p_detail)::text;
end
$$;

comment on function sync_internal.refuse(integer, text, text, jsonb) is 'Raises PTxyz with a JSON detail.';
grant execute on function sync_internal.refuse(integer, text, text, jsonb)
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
