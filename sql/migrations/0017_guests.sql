-- Purpose: finds guests nobody can be any more without looking at every user.
-- Lock: share on accounts.users, while it builds. Breaking: no.

-- squawk-ignore require-concurrent-index-creation
create index users_guests on accounts.users (created_at) where email is null;
