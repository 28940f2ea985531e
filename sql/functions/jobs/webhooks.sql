-- Webhooks: what happened is told to another system's address, signed as https://www.standardwebhooks.com describes.
-- Where they go is kept by name: of the installation ('crm'), or of a record of the app ('workspace:<id>').

-- Says where webhooks of a name are sent, and gives the secret that signs them, as the receiver is to be told:
-- whsec_<base64>. p_secret: one of yours, of 24 to 64 bytes, in that form; default: a new one, where there is none yet. With
-- a secret that replaces another, both sign for a day. For administrators, and for functions of theirs that look whether
-- somebody may; the worker sends to public addresses alone, whatever is said here. Raises PT400 bad_webhook.
create or replace function jobs.set_webhook(p_name text, p_url text, p_secret text default null)
returns text
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_secret bytea;
begin
    if p_url is null or char_length(p_url) > 2000 or p_url ~ '[^\u0021-\u007e]'
        or p_url !~ '^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?][^#]*)?$'
        or substring(p_url from '^https?://[^/?]*[^:/?]:([0-9]+)([/?]|$)')::integer not between 1 and 65535 then
        perform sync_internal.refuse(
            400, 'bad_webhook',
            'An address is like https://example.com/hook, in ASCII, without a user''s name and a fragment'
        );
    elsif p_name is null or char_length(p_name) not between 1 and 200 then
        perform sync_internal.refuse(400, 'bad_webhook', 'The name of a webhook has 1 to 200 characters');
    end if;
    if p_secret is not null then
        begin
            v_secret := decode(substr(p_secret, 7), 'base64');
        exception when invalid_parameter_value then
            null;
        end;
        if p_secret !~ '^whsec_' or v_secret is null or length(v_secret) not between 24 and 64 then
            perform sync_internal.refuse(400, 'bad_webhook', 'A secret is whsec_ and 24 to 64 bytes in base64');
        end if;
    end if;
    insert into jobs.webhooks as w (name, url, secret)
    values (p_name, p_url, coalesce(v_secret, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))
    on conflict (name) do update set
        url = excluded.url, gone = false, secret = coalesce(v_secret, w.secret),
        former_secret = case when v_secret is null or v_secret = w.secret then w.former_secret else w.secret end,
        former_until = case
            when v_secret is null or v_secret = w.secret then w.former_until else now() + interval '1 day'
        end
    returning secret into v_secret;
    return 'whsec_' || translate(encode(v_secret, 'base64'), E'\n', '');
end
$$;

comment on function jobs.set_webhook(text, text, text) is 'Says where webhooks of a name are sent.';

-- Webhooks of that name are sent no more, those that wait neither. False where there were none.
create or replace function jobs.remove_webhook(p_name text)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from jobs.webhooks w where w.name = p_name;
    return found;
end
$$;

comment on function jobs.remove_webhook(text) is 'Webhooks of a name are sent no more.';

-- Tells the address of a name what happened, once this commits: a job, tried again for a day, then held. The body is
-- {"type": p_type, "timestamp", "data": p_data}. Gives the job's number; null where the name has no address. p_key: while
-- one with this key waits, it is that one, as it was asked for first; better none where each event counts. For triggers of
-- administrators. Raises PT413 job_too_large.
create or replace function jobs.send_webhook(
    p_name text, p_type text, p_data jsonb default '{}', p_key text default null
)
returns bigint
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from jobs.webhooks w where w.name = p_name and not w.gone) then
        return null;
    end if;
    return jobs.put(
        'webhook',
        jsonb_build_object(
            'name', p_name, 'id', 'msg_' || replace(gen_random_uuid()::text, '-', ''),
            'body', jsonb_build_object(
                'type', p_type, 'timestamp', sync_internal.wire_time(now()), 'data', coalesce(p_data, '{}')
            )
        ),
        null, null, p_key
    );
end
$$;

comment on function jobs.send_webhook(text, text, jsonb, text) is 'Tells an address what happened.';
grant execute on function
jobs.set_webhook(text, text, text), jobs.remove_webhook(text), jobs.send_webhook(text, text, jsonb, text)
to service_role;

-- Where a webhook goes and what signs it: {"url", "secrets": [base64]}; null where there is no address any more.
create or replace function jobs.worker_webhook(p_name text)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object('url', w.url, 'secrets', (
        select jsonb_agg(encode(s.secret, 'base64'))
        from unnest(array[w.secret, case when w.former_until > now() then w.former_secret end]) s (secret)
        where s.secret is not null
    ))
    from jobs.webhooks w
    where w.name = p_name and not w.gone
$$;

comment on function jobs.worker_webhook(text) is 'Where a webhook goes and what signs it.';

-- The address has answered 410: nothing is sent to it any more, until it is set again.
create or replace function jobs.worker_webhook_gone(p_name text, p_url text)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update jobs.webhooks w set gone = true where w.name = p_name and w.url = p_url
$$;

comment on function jobs.worker_webhook_gone(text, text) is 'The address of a webhook has answered 410.';
grant execute on function jobs.worker_webhook(text), jobs.worker_webhook_gone(text, text) to rowcast_worker;
