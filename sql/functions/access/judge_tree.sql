-- Whether what a tree calls can be trusted to depend on nothing but its arguments and what it reads.

-- Types whose comparison, hashing and text are built in, through and through: an operator on arrays or rows calls
-- those of the elements, which the tree does not name.
create or replace function sync_internal.is_plain_type(p_type oid)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_type record;
begin
    select t.typtype, t.typelem, t.typbasetype, t.typcategory, t.typrelid into v_type
    from pg_catalog.pg_type t where t.oid = p_type;
    return case
        when v_type.typtype = 'e' then true
        when v_type.typtype = 'd' then sync_internal.is_plain_type(v_type.typbasetype)
        when v_type.typcategory = 'A' then p_type < 16384 or sync_internal.is_plain_type(v_type.typelem)
        when v_type.typtype = 'c' then not exists (
            select from pg_catalog.pg_attribute a
            where a.attrelid = v_type.typrelid and a.attnum > 0 and not a.attisdropped
                and not sync_internal.is_plain_type(a.atttypid)
        )
        else coalesce(p_type < 16384, false)
    end;
end
$$;

comment on function sync_internal.is_plain_type(oid) is 'Whether everything about a type is built in.';

-- Whether auth.uid, auth.jwt and auth.role, where somebody else made them, do no more than read the claims.
create or replace function sync_internal.reads_only_claims(p_source text)
returns boolean
language sql
immutable
parallel safe
security invoker
as $$
    select p_source !~* '\m(from|table|with|values|insert|update|delete|operator)\M|"|--|/\*|\$'
        -- What asks for the time, or the schema in use, without a call.
        and p_source !~* '\m(current_(date|time|timestamp|catalog|schema)|localtime|localtimestamp)\M'
        and p_source !~* '\m(now|today|tomorrow|yesterday)\M'
        and not exists (
            select from regexp_matches(lower(p_source), '([a-z0-9_.]+)\s*\(', 'g') c (called)
            where c.called[1] not in ('coalesce', 'nullif', 'current_setting', 'select', 'as')
        )
        and regexp_count(lower(p_source), 'current_setting')
        = regexp_count(lower(p_source), 'current_setting\s*\(\s*''request\.jwt\.')
$$;

comment on function sync_internal.reads_only_claims(text)
is 'Whether an SQL function''s text reads nothing but claims.';

-- The text of a function for people.
create or replace function sync_internal.function_name(p_function oid)
returns text
language sql
stable
parallel safe
security invoker
as $$
    select format(
        '%s%s(%s)', case when n.nspname <> 'pg_catalog' then quote_ident(n.nspname) || '.' end,
        quote_ident(p.proname), pg_get_function_identity_arguments(p.oid)
    )
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid = p_function
$$;

comment on function sync_internal.function_name(oid) is 'The name of a function, for people.';

-- Why a function's answer may change although its arguments have not; empty where it is not known to. follow: its body
-- is recorded and has to be looked into.
create or replace function sync_internal.judge_function(p_function oid, out problem text, out follow boolean)
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_function record;
    v_name text;
begin
    follow := false;
    select p.*, n.nspname as schema, l.lanname as language into v_function
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join pg_catalog.pg_language l on l.oid = p.prolang
    where p.oid = p_function;
    v_name := sync_internal.function_name(p_function);
    if v_function.pronargs = 0 and v_function.proowner = 'rowcast_owner'::regrole and (
        v_function.schema = 'auth' and v_function.proname in ('uid', 'jwt', 'role')
        or v_function.schema = 'sync_internal' and v_function.proname in ('claims', 'subject')
    ) then
        return;
    elsif v_function.pronargs = 0 and v_function.schema = 'auth' and v_function.proname in ('uid', 'jwt', 'role')
        and v_function.language = 'sql' and sync_internal.reads_only_claims(v_function.prosrc) then
        return;
    elsif v_function.prokind = 'a' then
        -- Of others the answer may depend on the order of rows, or on which of several equal values came first.
        if not (p_function < 16384 and v_function.schema = 'pg_catalog' and (
            v_function.proname in ('count', 'bool_and', 'bool_or', 'every', 'bit_and', 'bit_or', 'bit_xor')
            or v_function.proname in ('sum', 'min', 'max') and v_function.proargtypes[0] in (
                'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype
            )
            or v_function.proname in ('min', 'max') and v_function.proargtypes[0] in (
                'date'::regtype, 'timestamptz'::regtype, 'timestamp'::regtype, 'time'::regtype
            )
        )) then
            problem := format('calls the aggregate %s, which may depend on the order of rows', v_name);
        end if;
    elsif p_function < 16384 and v_function.schema = 'pg_catalog' then
        if v_function.proname = 'current_setting' then
            return;
        elsif v_function.provolatile <> 'i' then
            problem := format(
                'calls %s, which is %s: its answer may change by itself', v_name,
                case v_function.provolatile when 's' then 'stable' else 'volatile' end
            );
        elsif v_function.proname = 'quote_ident' or exists (
            select from unnest(v_function.proargtypes::oid[] || v_function.prorettype) a (type)
            join pg_catalog.pg_type t on t.oid = a.type
            where t.typname ~ '^reg' and t.oid < 16384
        ) then
            problem := format('calls %s, which looks into the catalogue or a setting', v_name);
        end if;
    elsif v_function.prosqlbody is null then
        problem := format(
            'calls %s, whose body PostgreSQL does not record%s', v_name,
            case
                when v_function.language in ('sql', 'plpgsql') then ': write it as language sql with begin atomic'
            end
        );
    elsif v_function.prosupport <> 0 then
        problem := format('calls %s, which the planner may replace: it has a support function', v_name);
    elsif v_function.provolatile = 'v' then
        problem := format('calls %s, which is volatile: declare it stable', v_name);
    else
        follow := true;
    end if;
end
$$;

comment on function sync_internal.judge_function(oid) is 'Why a function''s answer may change by itself.';

-- What scan_tree found, resolved: {"problems": [in words], "own": [columns], "reads": {relation: [columns]}, "follow":
-- [functions to look into], "calls": [functions that are not built in], "moving": whether anything in it is less than
-- immutable, "result": [types]}.
create or replace function sync_internal.judge_tree(p_tree text)
returns jsonb
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_scan constant jsonb := sync_internal.scan_tree(p_tree);
    v_problems text[] := array(select jsonb_array_elements_text(v_scan -> 'problems'));
    v_follow oid[] := '{}';
    v_calls oid[] := '{}';
    v_moving boolean := (v_scan -> 'values')::boolean or v_scan -> 'settings' <> '[]';
    v_function record;
    v_one record;
begin
    for v_function in
        select p.oid, j.problem, j.follow, p.provolatile
        from pg_catalog.pg_proc p
        cross join lateral sync_internal.judge_function(p.oid) j
        where p.oid in (
            select f.oid::oid from jsonb_array_elements_text(v_scan -> 'functions') f (oid)
            union
            select o.oprcode
            from jsonb_array_elements_text(v_scan -> 'operators') f (oid)
            join pg_catalog.pg_operator o on o.oid = f.oid::oid
            union
            -- The planner may put these in an operator's place.
            select r.oprcode
            from jsonb_array_elements_text(v_scan -> 'operators') f (oid)
            join pg_catalog.pg_operator o on o.oid = f.oid::oid and o.oid >= 16384
            join pg_catalog.pg_operator r on r.oid in (o.oprnegate, o.oprcom)
        )
        order by p.oid
    loop
        v_moving := v_moving or v_function.provolatile <> 'i';
        if v_function.oid >= 16384 then
            v_calls := v_calls || v_function.oid;
        end if;
        if v_function.follow then
            v_follow := v_follow || v_function.oid;
        elsif v_function.problem is not null then
            v_problems := v_problems || v_function.problem;
        end if;
    end loop;

    for v_one in
        select distinct s.setting
        from jsonb_array_elements_text(v_scan -> 'settings') s (setting)
        where lower(s.setting) not like 'request.jwt.%'
            and not exists (select from sync_internal.identity_settings i where i.setting = lower(s.setting))
    loop
        v_problems := v_problems || format(
            'reads the setting %s, which does not come from the claims (sync.map_identity says so)', v_one.setting
        );
    end loop;

    for v_one in
        select distinct t.oid::oid::regtype as type
        from jsonb_array_elements_text(v_scan -> 'types') t (oid)
        where t.oid <> '0' and not sync_internal.is_plain_type(t.oid::oid)
    loop
        v_problems := v_problems || format('uses the type %s, which is not built in', v_one.type);
    end loop;

    for v_one in
        select distinct c.pair ->> 0 as source, (c.pair ->> 1)::oid::regtype as target,
            case when c.pair ->> 0 ~ '^[0-9]+$' then (c.pair ->> 0)::oid::regtype end as from_type
        from jsonb_array_elements(v_scan -> 'casts') c (pair)
    loop
        if v_one.source = 'domain' then
            if sync_internal.has_checks(v_one.target) then
                v_problems := v_problems || format('casts to %s, a domain with checks', v_one.target);
            end if;
        elsif v_one.from_type is null then
            v_problems := v_problems || format('casts something to %s through its text', v_one.target);
        elsif not sync_internal.has_plain_text(v_one.from_type) then
            v_problems := v_problems || format(
                'casts %s to %s: its text depends on settings', v_one.from_type, v_one.target
            );
        elsif not exists (
            select from pg_catalog.pg_type t
            join pg_catalog.pg_proc p on p.oid = t.typinput
            where t.oid = v_one.target and (p.provolatile = 'i' or p.oid = 'pg_catalog.enum_in'::regproc)
        ) then
            v_problems := v_problems || format(
                'casts %s to %s: how a text is read depends on settings', v_one.from_type, v_one.target
            );
        end if;
    end loop;

    if v_scan -> 'groups' <> '[]' then
        for v_one in
            select distinct o.oprname, o.oprleft::regtype as type
            from jsonb_array_elements_text(v_scan -> 'groups') g (oid)
            join pg_catalog.pg_operator o on o.oid = g.oid::oid
            where not exists (
                -- PostgreSQL itself knows of which types equal values are the same.
                select from pg_catalog.pg_amop m
                join pg_catalog.pg_amproc p
                    on p.amprocfamily = m.amopfamily and p.amproclefttype = m.amoplefttype
                    and p.amprocrighttype = m.amoprighttype and p.amprocnum = 4
                where m.amopopr = o.oid and m.amopmethod = (select a.oid from pg_catalog.pg_am a where a.amname = 'btree')
            )
        loop
            v_problems := v_problems || format(
                'groups or sorts by %s, of which equal values may differ', v_one.type
            );
        end loop;
        for v_one in
            select distinct c.collname
            from jsonb_array_elements_text(v_scan -> 'collations') g (oid)
            join pg_catalog.pg_collation c on c.oid = g.oid::oid
            where not c.collisdeterministic
        loop
            v_problems := v_problems || format(
                'groups or sorts under the collation %s, by which different texts are equal', v_one.collname
            );
        end loop;
    end if;

    return jsonb_build_object(
        'problems', to_jsonb(v_problems), 'own', v_scan -> 'own',
        'reads', (
            select coalesce(jsonb_object_agg(r.relation, r.columns), '{}')
            from (
                select e.pair ->> 0 as relation,
                    jsonb_agg(distinct e.pair -> 1) filter (where (e.pair ->> 1)::integer > 0) as columns
                from jsonb_array_elements(v_scan -> 'reads') e (pair)
                group by 1
            ) r
        ),
        'follow', to_jsonb(v_follow), 'calls', to_jsonb(v_calls), 'moving', v_moving, 'result', v_scan -> 'result'
    );
end
$$;

comment on function sync_internal.judge_tree(text)
is 'What a stored expression tree reads, and what speaks against it.';

create or replace function sync_internal.has_checks(p_type oid)
returns boolean
language sql
stable
parallel safe
security invoker
as $$
    with recursive chain (oid) as (
        select p_type
        union all
        select t.typbasetype from chain c join pg_catalog.pg_type t on t.oid = c.oid where t.typtype = 'd'
    )
    select exists (
        select from chain c join pg_catalog.pg_constraint k on k.contypid = c.oid where k.contype = 'c'
    )
$$;

comment on function sync_internal.has_checks(oid) is 'Whether a domain, or what it is made of, has checks.';

-- Whether a value's text says exactly which it is, whatever the session's settings: not of floating point numbers
-- (extra_float_digits), nor of bytea and dates (the same value has several).
create or replace function sync_internal.has_plain_text(p_type oid)
returns boolean
language sql
stable
parallel safe
security invoker
as $$
    select coalesce(bool_and(
        (p.provolatile = 'i' or p.oid = 'pg_catalog.enum_out'::regproc)
        and p.proname not in ('float4out', 'float8out', 'byteaout') and t.typcategory <> 'G'
    ), false)
    from pg_catalog.pg_type t join pg_catalog.pg_proc p on p.oid = t.typoutput
    where t.oid = p_type
$$;

comment on function sync_internal.has_plain_text(oid) is 'Whether a value''s text does not depend on settings.';

-- Whether what a function's last query gives is what it is declared to return: else PostgreSQL converts it, as it runs,
-- by a cast that the recorded body does not show.
create or replace function sync_internal.returns_as_declared(p_function oid, p_result jsonb)
returns boolean
language plpgsql
stable
parallel safe
security invoker
as $$
declare
    v_function record;
    v_declared oid[];
begin
    select p.prorettype, p.proallargtypes, p.proargmodes, t.typtype, t.typrelid into v_function
    from pg_catalog.pg_proc p join pg_catalog.pg_type t on t.oid = p.prorettype
    where p.oid = p_function;
    v_declared := case
        when v_function.proargmodes is not null then array(
            select v_function.proallargtypes[g.i]
            from generate_subscripts(v_function.proargmodes, 1) g (i)
            where v_function.proargmodes[g.i] in ('o', 'b', 't')
            order by g.i
        )
        when v_function.typtype = 'c' then array(
            select a.atttypid from pg_catalog.pg_attribute a
            where a.attrelid = v_function.typrelid and a.attnum > 0 and not a.attisdropped
            order by a.attnum
        )
        else array[v_function.prorettype]
    end;
    return coalesce(jsonb_array_length(p_result), 0) = cardinality(v_declared) and not exists (
        select from unnest(v_declared) with ordinality d (type, n)
        where p_result ->> (d.n::integer - 1) is distinct from d.type::text
            and not exists (
                select from pg_catalog.pg_type t
                where t.oid = d.type and p_result ->> (d.n::integer - 1) = format('array of %s', t.typelem)
                    and t.typcategory = 'A'
            )
            and not exists (
                -- Of one binary form, such as varchar and text.
                select from pg_catalog.pg_cast c
                where c.castsource::text = p_result ->> (d.n::integer - 1) and c.casttarget = d.type
                    and c.castmethod = 'b'
            )
    );
end
$$;

comment on function sync_internal.returns_as_declared(oid, jsonb)
is 'Whether a recorded body gives what its function is declared to return.';
