-- sync_internal.session_ends is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.session_ends enable row level security;
