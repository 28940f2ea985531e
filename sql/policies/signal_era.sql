-- sync_internal.signal_era is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.signal_era enable row level security;
