-- Purpose: an exposed function is known by its name and argument types, so that one dropped or made anew is noticed.
-- Lock: access exclusive on sync_internal.callables. Breaking: no.

delete from sync_internal.callables c where not exists (select from pg_catalog.pg_proc p where p.oid = c.function);

-- A handful of rows, and nothing but our own definer functions reads them.
-- squawk-ignore changing-column-type
alter table sync_internal.callables alter column function type text using function::text;
alter table sync_internal.callables add column signature text not null default '';

comment on column sync_internal.callables.function is 'Schema, name and argument types.';
comment on column sync_internal.callables.signature
is 'Hash of the arguments, defaults and result the generated code was made for.';
