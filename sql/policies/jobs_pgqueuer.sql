-- jobs.pgqueuer is for its owner's definer functions, and for the worker's statements of pgqueuer.
alter table jobs.pgqueuer enable row level security;

drop policy if exists worker on jobs.pgqueuer;
create policy worker on jobs.pgqueuer
for all to rowcast_worker
using (true)
with check (true);
