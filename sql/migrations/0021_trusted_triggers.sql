-- Purpose: triggers of the application that writers need not mind are known by name.
-- Lock: access exclusive on sync_internal.tables, a moment. Breaking: no.

alter table sync_internal.tables add column trusted_triggers text[] not null default '{}';

comment on column sync_internal.tables.trusted_triggers
is 'Triggers of the table that leave no settings behind and change no row of a live table (sync.trust_triggers).';
