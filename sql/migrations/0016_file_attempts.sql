-- Purpose: uploads straight to a bucket that were rejected are counted, since each has a place of its own.
-- Lock: access exclusive on sync_internal.files, for a moment. Breaking: no.

alter table sync_internal.files add column attempt smallint not null default 0;

comment on column sync_internal.files.attempt is 'uploads straight to a bucket that were rejected';
