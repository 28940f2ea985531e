-- jobs.pgqueuer_schedules is for its owner's definer functions alone: row level security is on and there is no policy.
alter table jobs.pgqueuer_schedules enable row level security;
