-- accounts.topics is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.topics enable row level security;
