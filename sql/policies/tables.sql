-- sync_internal.tables is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.tables enable row level security;
