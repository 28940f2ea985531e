-- Purpose: which version of the application's schema this is, and the oldest that clients may have been made for.
-- Lock: access exclusive on sync_internal.state, for a moment. Breaking: no.

alter table sync_internal.state
add column app_schema bigint not null default 1,
add column oldest_schema bigint not null default 1,
-- One row: nothing to wait for.
-- squawk-ignore constraint-missing-not-valid
add constraint oldest_schema_is_in_use check (oldest_schema between 1 and app_schema);
