-- What rows of files stand for in the store is kept by triggers, so that any SQL, and any cascade, keeps it.

-- After a row is inserted: counts it against the quota of its creator, or of the caller where it names none; a backend
-- without a user has none. PT413 beyond max_file_bytes, PT422 quota beyond file_quota_bytes. Of two at once of one owner
-- the second waits. Definer: the table is private.
create or replace function sync_internal.note_file()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_owner constant text := coalesce(new.created_by::text, sync_internal.subject());
begin
    if new.size > sync_internal.setting('max_file_bytes') then
        perform sync_internal.refuse_limit(413, 'max_file_bytes');
    elsif v_owner is not null then
        perform pg_advisory_xact_lock(7215605, hashtext(v_owner));
        if new.size + coalesce((select sum(f.bytes) from sync_internal.files f where f.owner = v_owner), 0)
            > sync_internal.setting('file_quota_bytes') then
            perform sync_internal.refuse(
                422, 'quota', 'Your files would take more room than you have; delete some',
                jsonb_build_object('limit', 'file_quota_bytes')
            );
        end if;
    end if;
    insert into sync_internal.files (id, relation, owner, bytes) values (new.id, tg_relid, v_owner, new.size);
    return null;
end
$$;

comment on function sync_internal.note_file() is 'Trigger: a file counts from its row on.';

-- After a row is deleted, however. Definer: the table is private.
create or replace function sync_internal.doom_file()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update sync_internal.files f set doomed = true where f.id = old.id;
    return null;
end
$$;

comment on function sync_internal.doom_file() is 'Trigger: what a deleted row stood for is to be removed.';

-- After TRUNCATE. Definer: the table is private.
create or replace function sync_internal.doom_files()
returns trigger
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update sync_internal.files f set doomed = true where f.relation = tg_relid and not f.doomed;
    return null;
end
$$;

comment on function sync_internal.doom_files() is 'Trigger: what the rows of an emptied table stood for.';
