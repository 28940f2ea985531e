-- jobs.pgqueuer_log is for the worker's statements of pgqueuer.
alter table jobs.pgqueuer_log enable row level security;

drop policy if exists worker on jobs.pgqueuer_log;
create policy worker on jobs.pgqueuer_log
for all to rowcast_worker
using (true)
with check (true);
