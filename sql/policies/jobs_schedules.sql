-- jobs.schedules is for its owner's definer functions alone: row level security is on and there is no policy.
alter table jobs.schedules enable row level security;
