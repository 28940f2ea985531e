-- Purpose: the schemas of Rowcast and their default privileges.
-- Lock: none on existing objects. Breaking: no.

do $$
begin
    if not exists (select from pg_catalog.pg_namespace n where n.nspname = 'auth') then
        create schema auth authorization rowcast_owner;
    end if;
end
$$;

create schema if not exists sync_internal;
alter schema sync_internal owner to rowcast_owner;
create schema sync authorization rowcast_owner;

comment on schema sync is 'Rowcast: the callable API.';
comment on schema sync_internal is 'Rowcast: tables, helpers and generated code. Not an API.';

-- The global form: the one with "in schema" has no effect on the built-in grant to public.
alter default privileges for role rowcast_owner revoke execute on functions from public;
alter default privileges for role rowcast_owner revoke usage on types from public;

grant usage on schema sync, sync_internal to
anon, authenticated, service_role, rowcast_gateway, rowcast_worker;
