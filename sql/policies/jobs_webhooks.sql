-- jobs.webhooks is for its owner's definer functions alone: row level security is on and there is no policy.
alter table jobs.webhooks enable row level security;
