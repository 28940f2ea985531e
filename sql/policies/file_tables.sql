-- sync_internal.file_tables is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.file_tables enable row level security;
