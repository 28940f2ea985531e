-- jobs.runs: its policies are made by jobs.install_policies, once there are the functions they call.
alter table jobs.runs enable row level security;
