-- sync_internal.relays is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.relays enable row level security;
