-- Gives the logins that `rowcast migrate` has made the passwords of docker/secrets. May be repeated.
\set ON_ERROR_STOP on
\set gateway `cat /run/secrets/gateway_password`
\set worker `cat /run/secrets/worker_password`
set log_statement = 'none';
set log_min_duration_statement = -1;
alter role rowcast_gateway password :'gateway';
alter role rowcast_worker password :'worker';
