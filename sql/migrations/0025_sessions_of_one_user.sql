-- Purpose: the sessions of one user have a bound.
-- Lock: none. Breaking: no.

insert into sync_internal.settings (name, value) values ('user_sessions', 100);
