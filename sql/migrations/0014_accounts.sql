-- Purpose: accounts: users, their sessions, links sent by mail, providers they sign in by, mails to send, limits.
-- Also user ids in one spelling where ends of sessions are kept.
-- Lock: access exclusive on sync_internal.session_ends, a moment. Breaking: no.

create schema accounts authorization rowcast_owner;
comment on schema accounts
is 'Rowcast: users and their sessions. Functions are the API; nobody has a right on the tables.';
grant usage on schema accounts to rowcast_gateway, rowcast_worker, service_role;

create table accounts.users (
    id uuid primary key default gen_random_uuid(),
    email text constraint users_email_once unique,
    password_hash text,
    is_demo boolean not null default false,
    created_at timestamptz not null default now(),
    constraint email_is_normal check (email = lower(email) and email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    constraint password_needs_email check (password_hash is null or email is not null)
);
comment on table accounts.users is 'A user: with a verified address, or of a provider, or, without either, a guest.';
comment on column accounts.users.email is 'verified, in lower case';
comment on column accounts.users.password_hash is 'Argon2id in its own notation; null: none was set';
comment on column accounts.users.is_demo is 'signs in only where the development sign-in is turned on';

create table accounts.sessions (
    id uuid primary key,
    user_id uuid not null,
    family_hash bytea not null,
    secret_hash bytea not null,
    before_hash bytea,
    salt bytea,
    rotated_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint session_of_user foreign key (user_id) references accounts.users (id) on delete cascade,
    constraint hashes_are_sha256 check (
        length(family_hash) = 32 and length(secret_hash) = 32 and length(before_hash) = 32
    )
);
comment on table accounts.sessions
is 'A session: what a browser''s cookie stands for. One that has ended is gone.';
comment on column accounts.sessions.family_hash is 'SHA-256 of the part of the cookie that stays';
comment on column accounts.sessions.secret_hash is 'SHA-256 of the part that each refresh replaces';
comment on column accounts.sessions.before_hash
is 'that of the part before, which for a minute gets the same successor';
comment on column accounts.sessions.salt is 'what the present part was made from, with the part before as the key';
create index sessions_user_id on accounts.sessions (user_id);
create index sessions_expires_at on accounts.sessions (expires_at);

create table accounts.links (
    id uuid primary key,
    purpose text not null,
    token_hash bytea not null constraint link_token_once unique,
    email text not null,
    user_id uuid,
    password_hash text,
    browser_hash bytea,
    expires_at timestamptz not null,
    used_by uuid,
    constraint purpose_known check (purpose in ('sign_up', 'reset')),
    constraint link_of_user foreign key (user_id) references accounts.users (id) on delete cascade
);
comment on table accounts.links is 'A link sent by mail: a sign-up to be finished, or a password to be set.';
comment on column accounts.links.user_id is 'whose password it sets; or the guest who signs up';
comment on column accounts.links.password_hash is 'the password chosen at sign-up';
comment on column accounts.links.browser_hash is 'SHA-256 of the cookie of the browser that signed up';
comment on column accounts.links.used_by is 'the session that came of it';
create index links_email on accounts.links (email);
create index links_user_id on accounts.links (user_id);
create index links_expires_at on accounts.links (expires_at);

create table accounts.identities (
    issuer text not null,
    subject text not null,
    user_id uuid not null,
    provider text not null,
    created_at timestamptz not null default now(),
    primary key (issuer, subject),
    constraint identity_of_user foreign key (user_id) references accounts.users (id) on delete cascade
);
comment on table accounts.identities
is 'By whom a user signs in elsewhere: an OpenID Connect issuer and its name for him.';
create index identities_user_id on accounts.identities (user_id);

create table accounts.mails (
    id uuid primary key default gen_random_uuid(),
    kind text not null,
    recipient text not null,
    details jsonb not null default '{}',
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    sent_at timestamptz
);
comment on table accounts.mails
is 'A mail to be sent. Of a link it has the id alone: its token is made when it is sent.';
create index mails_due on accounts.mails (created_at) where sent_at is null;

create table accounts.limits (
    name text primary key,
    burst integer not null,
    per_hour integer not null,
    comment text not null,
    constraint limits_are_positive check (burst >= 0 and per_hour >= 1)
);
comment on table accounts.limits
is 'How often something may be tried: so many times at once, so many an hour. Burst 0: any number.';
insert into accounts.limits (name, burst, per_hour, comment) values
('sign_in_account', 100, 60, 'wrong passwords of one account, from anywhere'),
('sign_in_pair', 10, 30, 'wrong passwords of one account from one address'),
('sign_in_address', 50, 600, 'wrong passwords from one address'),
('sign_up_address', 20, 60, 'sign-ups and requests for resets from one address'),
('mail_recipient', 5, 10, 'mails to one address that somebody not signed in has asked for'),
('invitation_recipient', 10, 10, 'invitations mailed to one address; more are kept without a mail'),
('guest_address', 30, 60, 'guests from one address'),
('link_address', 30, 120, 'links opened, and sign-ins by a provider, from one address'),
('password_user', 10, 30, 'wrong current passwords of one user who is signed in'),
('invitation_user', 100, 60, 'invitations of one user');

-- Not logged: after a crash everybody may try afresh.
create unlogged table accounts.buckets (
    name text not null,
    key text not null,
    level double precision not null,
    at timestamptz not null,
    primary key (name, key)
);
comment on table accounts.buckets is 'What is left of a limit for one account, address or user.';
create index buckets_at on accounts.buckets (at);

do $$
declare
    v_table regclass;
begin
    for v_table in
        select c.oid from pg_catalog.pg_class c where c.relnamespace = 'accounts'::regnamespace and c.relkind = 'r'
    loop
        execute format('alter table %s owner to rowcast_owner', v_table);
    end loop;
end
$$;

insert into sync_internal.settings (name, value) values
('token_seconds', 600),
('session_days', 90),
('session_idle_days', 30),
('refresh_grace_seconds', 60),
('sign_up_link_minutes', 1440),
('reset_link_minutes', 60);

-- Ids that are uuids are compared as such from now on.
delete from sync_internal.session_ends e
where exists (
    select from sync_internal.session_ends o
    where lower(o.user_id) = lower(e.user_id)
        and (o.disabled, o.ended_at, o.user_id) > (e.disabled, e.ended_at, e.user_id)
)
and e.user_id ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
update sync_internal.session_ends e
set user_id = lower(e.user_id)
where e.user_id ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' and e.user_id <> lower(e.user_id);

-- The name '' stands for everybody.
-- squawk-ignore ban-drop-constraint
alter table sync_internal.session_ends drop constraint user_is_named;
