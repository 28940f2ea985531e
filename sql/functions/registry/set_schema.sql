-- Which version of the application's schema this is, and the oldest that clients may have been made for. A client says
-- which version its types were made from; one that is older than p_oldest is told to update, before anything it sent
-- is looked at. So say it in the transaction that breaks older clients, and not for what only adds.
--
-- p_oldest null: as before. Raises 23514 unless 1 <= oldest <= version. Locks the one row of state.
create or replace function sync.set_schema(p_version bigint, p_oldest bigint default null)
returns void
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    update sync_internal.state s set app_schema = p_version, oldest_schema = coalesce(p_oldest, s.oldest_schema);
    perform sync_internal.install_settings();
end
$$;

comment on function sync.set_schema(bigint, bigint)
is 'Which version the application''s schema is, and the oldest that clients may have been made for.';

-- Is a client new enough? Null: it does not say. Raises PT426.
create or replace function sync_internal.check_schema(p_schema bigint)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
begin
    if p_schema < sync_internal.setting('oldest_schema') then
        perform sync_internal.refuse(426, 'upgrade', 'This version of the app is too old; update it');
    end if;
    return true;
end
$$;

comment on function sync_internal.check_schema(bigint) is 'Is a client new enough?';
grant execute on function sync_internal.check_schema(bigint) to rowcast_gateway;
