-- jobs.pgqueuer_statistics is for its owner's definer functions alone: row level security is on and there is no policy.
alter table jobs.pgqueuer_statistics enable row level security;
