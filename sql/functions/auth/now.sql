-- The one server time of a transaction. A superuser's tests fake it with the setting rowcast.now; nobody else can.
create or replace function sync.now()
returns timestamptz
language sql
stable
parallel safe
security invoker
as $$
    select case
        when coalesce(current_setting('rowcast.now', true), '') = '' then now()
        else sync_internal.faked_now()
    end
$$;

comment on function sync.now() is 'The one server time of the transaction.';
grant execute on function sync.now() to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;

create or replace function sync_internal.faked_now()
returns timestamptz
language sql
stable
parallel safe
security invoker
as $$
    select case
        when (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user)
            then current_setting('rowcast.now', true)::timestamptz
        else now()
    end
$$;

comment on function sync_internal.faked_now() is 'The faked time, for a superuser.';
grant execute on function sync_internal.faked_now()
to anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
