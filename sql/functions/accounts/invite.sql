-- Mails an invitation to an address, whether or not it has an account; who may invite, and to what, is for the
-- application's policies: a trigger of its table of invitations calls this. p_details are shown in the mail: {"by",
-- "to"}, names. Gives the address as it is kept. PT400 bad_email; PT403 sign_up_first for a guest, who would be anybody
-- and have his words sent to anybody; PT429 where whoever asks invites too much. An
-- address that gets too many keeps its invitation without a mail, which nobody is told. For triggers of
-- administrators, and service_role.
create or replace function accounts.invite(p_email text, p_details jsonb default '{}')
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_email constant text := accounts.normal_email(p_email);
begin
    if sync_internal.claims() -> 'is_anonymous' = 'true' then
        perform sync_internal.refuse(403, 'sign_up_first', 'Guests cannot invite; sign up first');
    end if;
    perform accounts.take('invitation_user', coalesce(sync_internal.subject(), ''));
    begin
        perform accounts.take('invitation_recipient', v_email);
        perform accounts.post(
            'invitation', v_email,
            jsonb_build_object('by', left(p_details ->> 'by', 80), 'to', left(p_details ->> 'to', 200)),
            null, '7 days'
        );
    exception when sqlstate 'PT429' then
        null;
    end;
    return v_email;
end
$$;

comment on function accounts.invite(text, jsonb) is 'Mails an invitation to an address.';
grant execute on function accounts.invite(text, jsonb) to service_role;
