-- sync_internal.trusted_logins is for its owner's definer functions alone: row level security is on and there
-- is no policy.
alter table sync_internal.trusted_logins enable row level security;
