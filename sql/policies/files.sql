-- sync_internal.files is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.files enable row level security;
