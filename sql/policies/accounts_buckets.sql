-- accounts.buckets is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.buckets enable row level security;
