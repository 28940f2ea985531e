-- The gateway's doors to files. Each asks the right anew, as the user: to read for a download, to edit for the rest.
-- Missing, invisible and not permitted are one answer, PT403. p_body: {"table", "id"}.

-- What the gateway needs to know to give out a link or to look for the bytes. p_for: download, upload or confirm.
-- {"table", "id", "name", "type", "size", "sha256", "state", "deleted", "object", "attempt"}; of an
-- upload also when its link expires and until when it may run, of a download when its link expires, in seconds since
-- 1970: "expires", "until".
--
-- PT409 not_ready where there is nothing to download yet, deleted where it would have to be restored first, uploaded
-- where there is nothing to upload any more.
create or replace function sync.gateway_file(p_claims text, p_body text, p_for text)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_file constant jsonb := sync_internal.find_file(p_claims, p_body, p_for);
    v_now constant bigint := floor(extract(epoch from clock_timestamp()));
    v_expires bigint;
    v_until bigint;
begin
    if p_for = 'download' then
        if (v_file -> 'deleted')::boolean then
            perform sync_internal.refuse(409, 'deleted', 'The file was deleted; restore it first');
        elsif v_file ->> 'state' <> 'ready' or v_file -> 'object' = 'null' then
            perform sync_internal.refuse(409, 'not_ready', 'The file is not there yet');
        end if;
        return v_file || jsonb_build_object(
            'expires', v_now + least(sync_internal.setting('file_download_seconds'), 60)
        );
    elsif p_for = 'confirm' then
        return v_file;
    elsif v_file ->> 'state' = 'ready' then
        perform sync_internal.refuse(409, 'uploaded', 'The file is there; its bytes stay as they are');
    end if;
    v_expires := v_now + sync_internal.setting('file_upload_seconds');
    -- Who sends less than 16 KiB a second is cut, sooner or later.
    v_until := v_expires + 60 + (v_file ->> 'size')::bigint / 16384;
    -- An hour more, in which a slow store puts together what has arrived.
    perform sync_internal.expect_upload((v_file ->> 'id')::uuid, v_until + 3600);
    return v_file || jsonb_build_object('expires', v_expires, 'until', v_until);
end
$$;

comment on function sync.gateway_file(text, text, text) is 'The gateway''s door to a file: its row, if the user may.';

-- Makes a file ready. p_object, p_bytes, p_sha256: what the gateway has found in the store. For the present user, who
-- has to be allowed to edit it still. Confirmed already: no change, the same answer. PT409 mismatch where the bytes are not
-- those the row names. Locks the row.
create or replace function sync.gateway_confirm_file(
    p_claims text, p_body text, p_object text, p_bytes bigint, p_sha256 text
)
returns text
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_file constant jsonb := sync_internal.find_file(p_claims, p_body, 'confirm');
begin
    if v_file ->> 'state' = 'ready' then
        return v_file;
    elsif (v_file ->> 'size')::bigint <> p_bytes or v_file ->> 'sha256' <> p_sha256 then
        perform sync_internal.refuse(409, 'mismatch', 'What was uploaded is not what the record says; upload it again');
    end if;
    perform sync_internal.settle_file((v_file ->> 'id')::uuid, p_object, p_bytes, p_sha256);
    return v_file || jsonb_build_object('state', 'ready', 'object', p_object, 'sha256', p_sha256);
end
$$;

comment on function sync.gateway_confirm_file(text, text, text, bigint, text) is 'Makes a file ready.';

-- What an upload straight to a bucket has left is not what the row names: the next one has a place of its own, and
-- nothing under the name of this one is believed any more, so that it can be removed. True for whoever says so first. A few
-- times a file: each may leave as many bytes as it counts, until the sweep.
create or replace function sync.gateway_reject_upload(p_claims text, p_body text, p_attempt integer)
returns boolean
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_file constant jsonb := sync_internal.find_file(p_claims, p_body, 'confirm');
begin
    return sync_internal.next_attempt((v_file ->> 'id')::uuid, p_attempt);
end
$$;

comment on function sync.gateway_reject_upload(text, text, integer) is 'Gives the next upload another place.';

-- The row of a file as the user may read it, or edit it, and what it stands for. Afterwards nobody's role is on.
create or replace function sync_internal.find_file(p_claims text, p_body text, p_for text)
returns jsonb
language plpgsql
volatile
parallel unsafe
security invoker
as $$
declare
    v_request constant jsonb := sync_internal.parse_body(p_body);
    v_relation regclass;
    v_id uuid;
    v_file jsonb;
begin
    if jsonb_typeof(v_request) is distinct from 'object' or jsonb_typeof(v_request -> 'table') is distinct from 'string'
        or jsonb_typeof(v_request -> 'id') is distinct from 'string'
        or not sync_internal.is_uuid(v_request ->> 'id') then
        perform sync_internal.refuse(400, 'bad_request', 'Send {table, id}: a table of files and a uuid');
    end if;
    v_id := (v_request ->> 'id')::uuid;
    v_relation := sync_internal.file_table(v_request ->> 'table');
    if v_relation is null then
        perform sync_internal.refuse(400, 'unknown_table', 'There is no such table of files');
    end if;
    perform sync_internal.assume_claims(p_claims);
    begin
        -- A lock is refused as the UPDATE would be.
        execute format(
            'select jsonb_build_object(''name'', f.name, ''type'', f.type, ''size'', f.size, ''sha256'', f.sha256, '
            '''state'', f.state, ''deleted'', f.deleted is not null) from %s f where f.id = $1 %s',
            v_relation, case when p_for <> 'download' then 'for no key update' end
        ) into v_file using v_id;
    exception
        when insufficient_privilege then
            null;
    end;
    perform set_config('role', 'none', true), set_config('request.jwt.claims', '', true);
    if v_file is null then
        perform sync_internal.refuse(
            403, 'forbidden', 'No such record, or you may not change it',
            jsonb_build_object('table', v_request -> 'table', 'id', v_request -> 'id')
        );
    end if;
    return v_file || jsonb_build_object('table', v_request -> 'table', 'id', v_id) || sync_internal.stored_file(v_id);
exception
    when undefined_column or undefined_table or datatype_mismatch then
        perform sync_internal.refuse_shape();
end
$$;

comment on function sync_internal.find_file(text, text, text) is 'The row of a file, as a user may see it.';

-- The table of files with a wire name. Definer: the registry is private.
create or replace function sync_internal.file_table(p_name text)
returns regclass
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.relation
    from sync_internal.tables t
    join sync_internal.file_tables f on f.relation = t.relation
    where t.name = p_name and exists (select from pg_class c where c.oid = t.relation)
$$;

comment on function sync_internal.file_table(text) is 'The table of files with a wire name.';

-- The object that holds a file's bytes, null before it is confirmed, and how many uploads to a bucket were rejected:
-- {"object", "attempt"}. Definer: the table is private.
create or replace function sync_internal.stored_file(p_id uuid)
returns jsonb
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object('object', max(f.object), 'attempt', coalesce(max(f.attempt), 0))
    from sync_internal.files f
    where f.id = p_id
$$;

comment on function sync_internal.stored_file(uuid) is 'The object that holds a file''s bytes.';

-- Notes until when an upload may run, so that the sweep waits for it. Definer: the table is private.
create or replace function sync_internal.expect_upload(p_id uuid, p_until bigint)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update sync_internal.files f set busy_until = greatest(f.busy_until, to_timestamp(p_until)) where f.id = p_id
$$;

comment on function sync_internal.expect_upload(uuid, bigint) is 'Notes until when an upload may run.';

-- For gateway_reject_upload. Definer: the table is private.
create or replace function sync_internal.next_attempt(p_id uuid, p_attempt integer)
returns boolean
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update sync_internal.files f
    set attempt = f.attempt + 1
    where f.id = p_id and f.attempt = p_attempt and f.attempt < 4 and f.object is null;
    return found;
end
$$;

comment on function sync_internal.next_attempt(uuid, integer) is 'Counts a rejected upload to a bucket.';

-- Says that the bytes of a file are there. PT409 missing for a place in a bucket that was rejected meanwhile. Definer: neither the table nor the state is anybody's to write. Its caller has
-- locked the row, as the user.
create or replace function sync_internal.settle_file(p_id uuid, p_object text, p_bytes bigint, p_sha256 text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_relation regclass;
    v_attempt integer;
begin
    update sync_internal.files f
    set object = p_object, bytes = p_bytes, untidy = true
    where f.id = p_id and f.object is null and not f.doomed
    returning f.relation, f.attempt into strict v_relation, v_attempt;
    if p_object like 'direct-%' and p_object <> 'direct-' || v_attempt then
        perform sync_internal.refuse(409, 'missing', 'The bytes of this file are not there; upload it');
    end if;
    perform sync_internal.mark_ready(v_relation, p_id, p_sha256);
end
$$;

comment on function sync_internal.settle_file(uuid, text, bigint, text) is 'Says that the bytes of a file are there.';

-- For settle_file alone, whose rights it has: a relation comes from the registry, never from a caller.
create or replace function sync_internal.mark_ready(p_relation regclass, p_id uuid, p_sha256 text)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    execute format('update %s f set state = ''ready'', sha256 = $2 where f.id = $1', p_relation) using p_id, p_sha256;
end
$$;

comment on function sync_internal.mark_ready(regclass, uuid, text) is 'Writes into a row of files that it is ready.';

-- The key that signs links, the same for all gateways, in hex. Definer: the table is private.
create or replace function sync.gateway_file_key()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select encode(s.file_key, 'hex') from sync_internal.state s
$$;

comment on function sync.gateway_file_key() is 'The key that signs links to files.';

grant execute on function
sync.gateway_file(text, text, text), sync.gateway_confirm_file(text, text, text, bigint, text), sync.gateway_file_key(),
sync.gateway_reject_upload(text, text, integer), sync_internal.next_attempt(uuid, integer),
sync_internal.find_file(text, text, text), sync_internal.file_table(text), sync_internal.stored_file(uuid),
sync_internal.expect_upload(uuid, bigint), sync_internal.settle_file(uuid, text, bigint, text)
to rowcast_gateway;
