-- sync_internal.state is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.state enable row level security;
