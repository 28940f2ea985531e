-- Purpose: mails outlast a server that is away for days; requests for resets count by themselves, so that nobody is kept
--     from his by other mails; pgqueuer's log of jobs taken, which nobody reads, stays empty.
-- Lock: share row exclusive on jobs.pgqueuer_log, a moment. Breaking: no.

update jobs.kinds set max_attempts = 80 where kind = 'mail' and max_attempts = 12;

insert into accounts.limits (name, burst, per_hour, comment) values
('reset_recipient', 5, 10, 'resets mailed to one address; more are answered without a mail');
update accounts.limits set comment = 'sign-ups with one address' where name = 'mail_recipient';

truncate jobs.pgqueuer_log;
comment on table jobs.pgqueuer_log is 'Of pgqueuer, and empty: see jobs.forget.';

create function jobs.forget()
returns trigger
language plpgsql
volatile
parallel unsafe
security invoker
as $$
begin
    return null;
end
$$;
comment on function jobs.forget() is 'Trigger: pgqueuer''s log of jobs taken is not kept; nobody reads it.';
revoke all on function jobs.forget() from public;
alter function jobs.forget() owner to rowcast_owner;

create trigger pgqueuer_log_forget
before insert on jobs.pgqueuer_log
for each row execute function jobs.forget();
