-- Ends sync.disable_user: tokens issued after this count again, those of before do not. Harmless on a user who is not
-- disabled. Definer: the table is private.
create or replace function sync.enable_user(p_user_id text)
returns void
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    update sync_internal.session_ends e
    set disabled = false, ended_at = greatest(e.ended_at, clock_timestamp())
    where e.user_id = sync_internal.user_key(p_user_id) and e.disabled
$$;

comment on function sync.enable_user(text) is 'Ends sync.disable_user.';
grant execute on function sync.enable_user(text) to service_role;
