-- accounts.notices is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.notices enable row level security;
