-- accounts.mails is for its owner's definer functions alone: row level security is on and there is no policy.
alter table accounts.mails enable row level security;
