-- sync_internal.memberships is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.memberships enable row level security;
