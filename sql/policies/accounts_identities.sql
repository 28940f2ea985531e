-- accounts.identities is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.identities enable row level security;
