-- The outbox: rows are written with what they tell of, and sent by whoever asks for them.

-- The mails to be sent, oldest first: [{"id", "kind", "recipient", "details", "createdAt", "tokenHash"}]; the last of the
-- token of the link they carry, in hex, else null. Those too old to be of use are left out.
create or replace function accounts.mails_due(p_most integer default 100)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_agg(
        jsonb_build_object(
            'id', m.id, 'kind', m.kind, 'recipient', m.recipient, 'details', m.details,
            'createdAt', to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'tokenHash', (select encode(l.token_hash, 'hex') from accounts.links l where l.id = m.id)
        )
        order by m.created_at, m.id
    ), '[]')
    from (
        select m.* from accounts.mails m
        where m.sent_at is null and m.expires_at > now()
        order by m.created_at desc
        limit p_most
    ) m
$$;

comment on function accounts.mails_due(integer) is 'The mails to be sent.';
grant execute on function accounts.mails_due(integer) to rowcast_gateway, rowcast_worker;

-- One of them, as it is to be sent; null where it was sent, or is of no use any more. Of a digest there is what its
-- reader wants to hear of and may read now, however long the mail has waited. Invoker: that is asked as the reader.
create or replace function accounts.worker_mail(p_id uuid)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_mail constant jsonb := accounts.worker_outbox(p_id);
    v_items jsonb;
begin
    if v_mail ->> 'kind' is distinct from 'digest' then
        return v_mail;
    end if;
    v_items := accounts.worker_wanted((v_mail #>> '{details,user}')::uuid, v_mail #> '{details,items}');
    if v_items = '[]' then
        return null;
    end if;
    return jsonb_set(v_mail, '{details,items}', v_items);
end
$$;

comment on function accounts.worker_mail(uuid) is 'A mail to be sent.';

create or replace function accounts.worker_outbox(p_id uuid)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'id', m.id, 'kind', m.kind, 'recipient', m.recipient, 'details', m.details,
        'createdAt', to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'tokenHash', (select encode(l.token_hash, 'hex') from accounts.links l where l.id = m.id)
    )
    from accounts.mails m
    where m.id = p_id and m.sent_at is null and m.expires_at > now()
        and (m.kind <> 'digest' or m.recipient = accounts.digest_address((m.details ->> 'user')::uuid))
$$;

comment on function accounts.worker_outbox(uuid) is 'A mail of the outbox.';
grant execute on function accounts.worker_mail(uuid), accounts.worker_outbox(uuid) to rowcast_worker;

-- Notes that a mail was sent. Harmless to repeat.
create or replace function accounts.mail_sent(p_id uuid)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update accounts.mails m set sent_at = coalesce(m.sent_at, now()) where m.id = p_id
$$;

comment on function accounts.mail_sent(uuid) is 'Notes that a mail was sent.';
grant execute on function accounts.mail_sent(uuid) to rowcast_worker;
