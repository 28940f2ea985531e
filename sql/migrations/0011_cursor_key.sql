-- Purpose: the key under which gateways make cursors opaque to clients, the same for all of them.
-- Lock: access exclusive on sync_internal.state, for a moment. Breaking: cursors that clients hold are stale once.

-- 610 random bits of PostgreSQL's strong generator, as 64 bytes. A default, so that the one row there is gets it here.
alter table sync_internal.state
-- squawk-ignore adding-field-with-default
add column cursor_key bytea not null default sha512(
    uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
