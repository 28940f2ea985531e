-- Whether this database is one Rowcast may serve. Each row is one finding: severity error (must not serve), warning or
-- info; a code; what it is about; what is wrong; and the fix.
create or replace function sync.doctor()
returns table (severity text, code text, object text, message text, fix text)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with tables as (
        select t.* from sync_internal.tables t where exists (select from pg_class c where c.oid = t.relation)
    ),
    -- Each trigger of a live table, and as what it may be switched on.
    triggers (name, states) as (
        values ('zzz_rowcast_version', 'OA'), ('zzz_rowcast_insert', 'OA'), ('zzz_rowcast_update', 'OA'),
            ('zzz_rowcast_delete', 'OA'), ('zzz_rowcast_truncate', 'A'), ('zzz_rowcast_replica', 'RA')
    )
    -- Roles that would pass by the policies.
    select 'error', 'role_bypasses_rls', r.rolname::text, 'The role bypasses row level security',
        format('alter role %I nobypassrls nosuperuser;', r.rolname)
    from pg_roles r
    where r.rolname in ('anon', 'authenticated', 'service_role', 'rowcast_gateway', 'rowcast_worker')
        and (r.rolbypassrls or r.rolsuper)
    union all
    select 'error', 'role_owns_table', format('%s %s', r.rolname, t.relation),
        'The role owns a live table, or belongs to its owner, and so passes by its policies',
        format('alter table %s owner to another_role;', t.relation)
    from tables t
    join pg_class c on c.oid = t.relation
    cross join pg_roles r
    where r.rolname in ('anon', 'authenticated', 'rowcast_gateway', 'rowcast_worker')
        and pg_has_role(r.rolname, c.relowner, 'member')
    union all
    select 'error', 'gateway_too_strong', format('%s', m.roleid::regrole),
        'The gateway may become a role beyond anon and authenticated',
        format('revoke %s from rowcast_gateway;', m.roleid::regrole)
    from pg_auth_members m
    where m.member = 'rowcast_gateway'::regrole and m.roleid::regrole::text not in ('anon', 'authenticated')
    union all
    select 'error', 'row_security_off', t.relation::text, 'A live table has row level security switched off',
        format('alter table %s enable row level security;', t.relation)
    from tables t join pg_class c on c.oid = t.relation
    where not c.relrowsecurity
    union all
    select 'error', 'trigger_missing', format('%s %s', t.relation, n.name),
        'A trigger of Rowcast is missing or switched off: changes go unheard',
        format('select sync.refresh(%L);', t.relation)
    from tables t
    cross join triggers n
    where not exists (
        select from pg_trigger g
        where g.tgrelid = t.relation and g.tgname = n.name and strpos(n.states, g.tgenabled::text) > 0
    )
    union all
    select 'error', 'file_trigger_missing', format('%s %s', f.relation, n.name),
        'A trigger of a table of files is missing or switched off: files are neither counted nor removed',
        format('create trigger %s %s on %s %s;', n.name, n.event, f.relation, n.work)
    from sync_internal.file_tables f
    join tables t on t.relation = f.relation
    cross join (
        values
        ('zzz_rowcast_file', 'after insert', 'for each row execute function sync_internal.note_file()'),
        ('zzz_rowcast_file_gone', 'after delete', 'for each row execute function sync_internal.doom_file()'),
        ('zzz_rowcast_files_gone', 'after truncate', 'for each statement execute function sync_internal.doom_files()')
    ) n (name, event, work)
    where not exists (
        select from pg_trigger g where g.tgrelid = f.relation and g.tgname = n.name and g.tgenabled in ('O', 'A')
    )
    union all
    select 'error', 'leaf_without_triggers', l.relid::regclass::text,
        'A partition lacks triggers, since it was added later or they were switched off: '
        'changes made in it directly go unheard',
        format('select sync.refresh(%L);', t.relation)
    from tables t
    cross join lateral pg_partition_tree(t.relation) l
    where l.relid <> t.relation and exists (
        select from triggers n
        where not exists (
            select from pg_trigger g
            where g.tgrelid = l.relid and g.tgname = n.name and strpos(n.states, g.tgenabled::text) > 0
        )
    )
    union all
    select 'error', 'epoch_differs', s.epoch,
        'The database was restored or promoted since: cursors belong to another history',
        'rowcast migrate'
    from sync_internal.state s where s.epoch <> sync_internal.compute_epoch() and not pg_is_in_recovery()
    union all
    select 'warning', 'shape_changed', t.relation::text, 'The table has changed since its code was made',
        format('select sync.refresh(%L);', t.relation)
    from tables t where t.signature <> sync_internal.table_signature(t.relation)
    union all
    select 'warning', 'table_dropped', t.name, 'A live table was dropped without being made an ordinary one',
        'select sync.refresh();'
    from sync_internal.tables t where t.table_id not in (select l.table_id from tables l)
    union all
    select 'warning', 'function_changed', c.name,
        format('The exposed function %s was dropped or has changed since', c.function),
        case sync_internal.callable_state(c.function, c.signature)
            when 'changed' then 'select sync.refresh();'
            when 'replaced'
                then format('select sync.expose(%L, %L);', sync_internal.successor(c.function), c.name)
            else format('select sync.unexpose(%L);', c.name)
        end
    from sync_internal.callables c where sync_internal.callable_state(c.function, c.signature) is not null
    union all
    select 'warning', 'soft_delete_in_policy', t.relation::text,
        'A SELECT policy reads the soft delete column: rows cannot be deleted',
        'Leave the column out of the policy; queries leave deleted rows out by themselves.'
    from tables t
    where exists (
        select from pg_attribute a
        where a.attrelid = t.relation and a.attname = t.soft_delete
            and a.attnum = any (sync_internal.policy_columns(t.relation))
    )
    union all
    select 'warning', 'no_policy', t.relation::text, 'The table has no SELECT policy: nobody can read it',
        format('create policy ... on %s for select ...;', t.relation)
    from tables t
    where not exists (
        select from pg_policy p
        where p.polrelid = t.relation and p.polcmd in ('r', '*')
            -- That of sync.purge_deleted lets no user in.
            and p.polroles <> array['rowcast_owner'::regrole::oid]
    )
    union all
    -- One row per reason: the policies of several roles may share it.
    select 'info', 'not_cacheable', n.relation::text,
        format('Who sees a change is asked of PostgreSQL each time (%s): %s', n.roles, n.reason),
        format('select * from sync.policy_reads(%L);', n.relation)
    from (
        select a.relation, r.reason, string_agg(a.role, ', ' order by a.role) as roles
        from sync_internal.access_report(
            array(select t.relation from sync_internal.tables t), sync_internal.served_roles()
        ) a
        cross join lateral unnest(a.reasons) r (reason)
        group by a.relation, r.reason
    ) n
    union all
    select 'warning', 'prepared_transactions', 'max_prepared_transactions',
        'Two-phase commit on live tables is not supported: PREPARE TRANSACTION fails whenever the doorbell has to ring',
        'Set max_prepared_transactions = 0.'
    where current_setting('max_prepared_transactions')::integer > 0
    union all
    select 'warning', 'foreign_identity', 'auth.uid()',
        'auth.uid() is not Rowcast''s: it believes any setting, so direct SQL logins are not identified by it',
        'Give nobody a direct SQL login that is a member of authenticated.'
    where exists (
        select from pg_proc p
        where p.pronamespace = 'auth'::regnamespace and p.proname = 'uid' and p.proowner <> 'rowcast_owner'::regrole
    )
    union all
    select 'warning', 'minor_version', current_setting('server_version'),
        'This minor version has known faults of row level security', 'Upgrade to the newest minor version.'
    where current_setting('server_version_num')::integer < case current_setting('server_version_num')::integer / 10000
        when 15 then 150014 when 16 then 160010 when 17 then 170006 when 18 then 180000 else 150014
    end
    union all
    select 'error', 'too_old', current_setting('server_version'), 'PostgreSQL 15 or newer is needed', 'Upgrade.'
    where current_setting('server_version_num')::integer < 150000
    union all
    select 'warning', 'commits_may_be_lost', v.name,
        'Acknowledged writes may be lost in a crash', format('Set %s = on.', v.name)
    from (values ('fsync'), ('full_page_writes')) v (name)
    where current_setting(v.name) = 'off'
    union all
    select 'warning', 'notify_queue_fills', 'pg_notification_queue_usage()',
        format(
            'The queue of notifications is full to %s %%: a session that listens has been in a transaction for long, '
            'and once it is full writes fail', round(pg_notification_queue_usage() * 100)
        ),
        'End that session: the server''s log names it, pg_stat_activity has its age.'
    where pg_notification_queue_usage() > 0.1
    union all
    select 'warning', 'relay_behind', p.name,
        format('This gateway read the feed to its end %s ago: its sockets hear late', justify_interval(p.behind)),
        'See its log: it says what was in the way.'
    from sync_internal.relay_places() p where p.behind > interval '10 seconds'
    union all
    select 'warning', 'not_pruned', 'sync_internal.changes',
        format('The oldest change is of %s, long past the retention of %s days', o.at, r.days),
        'select sync.prune(); a gateway does so once an hour.'
    from (select sync_internal.setting('retention_days') as days) r
    -- A leaf holds a sixth of the retention, and is emptied when all of it is past.
    cross join lateral (select c.at from sync_internal.changes c order by c.xid, c.seq limit 1) o
    where o.at < now() - (r.days * interval '1 day' * 7 / 6 + interval '1 day')
    union all
    select 'info', 'sizes', 'sync_internal.changes, sync_internal.receipts',
        format(
            'The feed takes %s and begins %s, the receipts take %s; both are kept %s days',
            pg_size_pretty((s.status #>> '{feed,bytes}')::bigint),
            coalesce('at ' || (s.status #>> '{feed,oldestAt}'), 'with the next change'),
            pg_size_pretty((s.status #>> '{receipts,bytes}')::bigint), s.status ->> 'retentionDays'
        ),
        'Too much: fewer retention_days, by sync.configure(). More: sync.status().'
    from sync.status() s (status)
$$;

comment on function sync.doctor() is 'Whether this database is one Rowcast may serve.';
grant execute on function sync.doctor() to rowcast_gateway, rowcast_worker;
