-- Purpose: the flag of the doorbell, which tells writers whether some relay sleeps and has to be woken.
-- Lock: none on existing objects. Breaking: no; gateways of an earlier version hear no bell and read once a second
-- until they are restarted.

-- A sequence, since reading one is not a matter of snapshots: whoever writes sees the newest value at every isolation
-- level, and changing it leaves no dead rows behind.
create sequence sync_internal.bell minvalue 0 start 0;

comment on sequence sync_internal.bell
is 'The doorbell: a bit for each relay that sleeps; writers ring unless it is 0.';

do $$
begin
    perform pg_catalog.setval('sync_internal.bell', 0);
end
$$;

alter sequence sync_internal.bell owner to rowcast_owner;
