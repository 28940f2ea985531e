-- sync_internal.columns is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.columns enable row level security;
