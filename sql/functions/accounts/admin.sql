-- For administrators and `rowcast users`.

-- The users, newest first, whose id or address holds the text; null: all.
create or replace function accounts.list_users(p_like text default null, p_most integer default 100)
returns table (
    id uuid, email text, guest boolean, has_password boolean, providers text[], sessions bigint, disabled boolean,
    created_at timestamptz
)
language sql
stable
parallel safe
security invoker
as $$
    select
        u.id, u.email,
        accounts.is_guest(u.id),
        u.password_hash is not null,
        array(select distinct i.provider from accounts.identities i where i.user_id = u.id order by 1),
        (select count(*) from accounts.sessions s where s.user_id = u.id and s.expires_at > now()),
        exists (select from sync_internal.session_ends e where e.user_id = u.id::text and e.disabled),
        u.created_at
    from accounts.users u
    where p_like is null or strpos(u.email, lower(p_like)) > 0 or u.id::text = lower(p_like)
    order by u.created_at desc, u.id
    limit p_most
$$;

comment on function accounts.list_users(text, integer) is 'The users.';

-- Removes what is of no use any more: sessions and links that are too old, mails sent or too old a month ago, limits
-- at rest; and guests whose last session has ended, a thousand at once: nobody can be them any more. What they have
-- made stays, unless the application has a trigger on accounts.users. Part of sync.prune.
create or replace function accounts.prune()
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from accounts.sessions s where s.expires_at < now();
    delete from accounts.users u
    where u.id in (
        select g.id
        from accounts.users g
        where g.email is null and g.created_at < now() - interval '1 day'
            and accounts.is_guest(g.id)
            and not exists (select from accounts.sessions s where s.user_id = g.id)
            -- A sign-up of his may still be confirmed.
            and not exists (
                select from accounts.links l where l.user_id = g.id and l.used_by is null and l.expires_at > now()
            )
            -- Who is disabled stays so.
            and not exists (select from sync_internal.session_ends e where e.user_id = g.id::text and e.disabled)
        order by g.created_at
        limit 1000
        for update skip locked
    );
    delete from accounts.links l where l.expires_at < now() - interval '1 day';
    delete from accounts.mails m where m.expires_at < now() - interval '30 days';
    delete from accounts.buckets b
    using accounts.limits l
    where l.name = b.name and b.at < now() - interval '1 s' * (3600.0 * l.burst / l.per_hour);
end
$$;

comment on function accounts.prune() is 'Removes what is of no use any more.';
