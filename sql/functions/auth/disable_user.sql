-- Disables a user: no token of his counts, of whatever time, until sync.enable_user; all else as in sync.end_sessions.
-- His memberships, rows and receipts stay as they are. Harmless to repeat. Definer: the table is private.
create or replace function sync.disable_user(p_user_id text)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.note_session_end(sync_internal.must_name_user(p_user_id), true);
end
$$;

comment on function sync.disable_user(text) is 'Disables a user: no token of his counts.';
grant execute on function sync.disable_user(text) to service_role;
