-- accounts.users is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.users enable row level security;
