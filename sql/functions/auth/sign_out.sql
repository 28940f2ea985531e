-- Ends all sessions of whoever is asking, on every device, the one he asks with too. PT401 for nobody. Definer: the
-- table is private.
create or replace function sync.sign_out()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user constant text := nullif(sync_internal.subject(), '');
begin
    if v_user is null then
        perform sync_internal.refuse(401, 'unauthorized', 'Nobody is signed in');
    end if;
    perform sync_internal.note_session_end(v_user, null);
end
$$;

comment on function sync.sign_out() is 'Ends all sessions of whoever is asking.';
grant execute on function sync.sign_out() to authenticated;
