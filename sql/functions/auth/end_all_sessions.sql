-- Ends the sessions of everybody, as sync.end_sessions those of one: no token that was issued up to now counts
-- any more,
-- of whatever issuer, and no link that was mailed. For when a key has leaked, together with another key: the gateways
-- fetch the issuer's anew. For administrators.
create or replace function sync.end_all_sessions()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform sync_internal.note_session_end('', null);
end
$$;

comment on function sync.end_all_sessions() is 'Ends all sessions of everybody.';
