-- sync_internal.identity_settings is for its owner's definer functions alone: row level security is on and
-- there is no policy.
alter table sync_internal.identity_settings enable row level security;
