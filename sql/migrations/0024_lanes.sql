-- Purpose: a receiver of webhooks that is slow keeps two places, and the others have theirs.
-- Lock: access exclusive on jobs.kinds, share on jobs.pgqueuer, for a moment. Breaking: no.

alter table jobs.kinds add column lane_key text, add column lane_places integer not null default 2;
-- squawk-ignore constraint-missing-not-valid
alter table jobs.kinds add constraint kind_has_lane_places check (lane_places between 1 and 1000);
comment on column jobs.kinds.lane_key
is 'what in its payload names a lane, if anything; for kinds that the worker''s own code does';
comment on column jobs.kinds.lane_places is 'so many of one lane at once over all workers';
update jobs.kinds set lane_key = 'name' where kind = 'webhook';
update jobs.kinds set concurrency = 8 where kind = 'webhook' and concurrency = 4;

-- squawk-ignore require-concurrent-index-creation
create index pgqueuer_lane on jobs.pgqueuer (entrypoint, (headers ->> 'lane'), id)
where status = 'queued' and headers ? 'lane';
