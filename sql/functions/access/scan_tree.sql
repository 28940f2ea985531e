-- Reading stored expression trees: policies, bodies of "begin atomic" functions, rules of views. pg_depend leaves out
-- built-in functions, whole rows and a table's reads of itself, so the tree's own text is read.
--
-- The text is that of PostgreSQL's node output. In it a name is one token: spaces, braces and brackets of names are
-- escaped, and a label is always followed by its value, so that no name can pass for a label. Constants are numbers.
-- What is not known here makes the tree's table uncacheable: node names are those of PostgreSQL 15 to 18.

-- What a tree reads and calls: {"problems": [why its answer may change although nothing it reads has], "own": [columns
-- of the relation whose policy it is], "reads": [[relation, column or null], ...], "functions", "operators",
-- "aggregates", "types", "groups", "collations": [oids], "casts": [[from, to]], "settings": [names], "values": whether it
-- asks for current_user or the like, "result": [types of the last query's columns]}.
create or replace function sync_internal.scan_tree(p_tree text)
returns jsonb
language plpgsql
immutable
parallel safe
security invoker
as $$
declare
    v_token text[];
    v_label text;
    v_value text;
    v_depth integer := 0;
    -- How many queries are open: a column of the policy's own relation is as many levels up.
    v_level integer := 0;
    -- Of each open node: its name, result type, last child's type, number of children, and what it must remember.
    v_node text[] := '{}';
    v_type text[] := '{}';
    v_child text[] := '{}';
    v_children integer[] := '{}';
    v_mark text[] := '{}';
    v_at integer;
    v_closed text;
    v_result text;
    v_problems text[] := '{}';
    v_own integer[] := '{}';
    v_reads jsonb := '[]';
    v_functions text[] := '{}';
    v_operators text[] := '{}';
    v_types text[] := '{}';
    v_groups text[] := '{}';
    v_collations text[] := '{}';
    v_casts jsonb := '[]';
    v_settings text[] := '{}';
    v_values boolean := false;
    v_known constant text[] := array[
        'AGGREF', 'ALIAS', 'ARRAYCOERCEEXPR', 'ARRAYEXPR', 'BOOLEANTEST', 'BOOLEXPR', 'CASEEXPR', 'CASETESTEXPR',
        'CASEWHEN', 'COALESCEEXPR', 'COERCETODOMAIN', 'COERCEVIAIO', 'COLLATEEXPR', 'COMMONTABLEEXPR', 'CONST',
        'DISTINCTEXPR', 'FIELDSELECT', 'FROMEXPR', 'FUNCEXPR', 'JOINEXPR', 'MINMAXEXPR', 'NAMEDARGEXPR', 'NULLIFEXPR',
        'NULLTEST', 'OPEXPR', 'PARAM', 'QUERY', 'RANGETBLENTRY', 'RANGETBLFUNCTION', 'RANGETBLREF', 'RELABELTYPE',
        'ROWCOMPAREEXPR', 'ROWEXPR', 'RTEPERMISSIONINFO', 'SCALARARRAYOPEXPR', 'SETOPERATIONSTMT', 'SORTGROUPCLAUSE',
        'SQLVALUEFUNCTION', 'SUBLINK', 'SUBSCRIPTINGREF', 'TARGETENTRY', 'VAR'
    ];
    v_wanted constant text[] := array[
        'varattno', 'varlevelsup', 'relid', 'selectedCols', 'funcid', 'opfuncid', 'hashfuncid', 'negfuncid', 'aggfnoid',
        'opno', 'opnos', 'opfamilies', 'eqop', 'sortop', 'vartype', 'consttype', 'paramtype', 'funcresulttype',
        'opresulttype', 'aggtype', 'casetype', 'coalescetype', 'minmaxtype', 'resulttype', 'array_typeid', 'row_typeid',
        'typeId', 'refrestype', 'type', 'refcontainertype', 'refelemtype', 'element_typeid', 'coltypes', 'colTypes',
        'aggargtypes', 'funccoltypes', 'ctecoltypes', 'varcollid', 'constcollid', 'inputcollid', 'funccollid',
        'opcollid', 'resultcollid', 'collOid', 'constvalue', 'resjunk', 'limitCount', 'limitOffset', 'hasDistinctOn',
        'hasModifyingCTE', 'hasForUpdate', 'commandType', 'funcordinality', 'subLinkType', 'op'
    ];
begin
    for v_token in
        select k.token
        -- Pieces first, and the parts of those that count: with its parts each piece takes several times as long.
        from regexp_matches(
            regexp_replace(p_tree, '\\.', '_', 'g'),
            '\{[A-Z]*|\}| :[A-Za-z_]+ (?:\([ob][ 0-9]*\)|[^ (){}]+)?(?: \[[ 0-9-]*\])?', 'g'
        ) with ordinality t (piece, n)
        cross join lateral regexp_match(
            t.piece[1], '^(?:\{([A-Z]*)|(\})| :([A-Za-z_]+) (\([ob][ 0-9]*\)|[^ (){}]+)?(?: \[([ 0-9-]*)\])?)$'
        ) k (token)
        where t.piece[1] !~ '^ ' or substr(split_part(t.piece[1], ' ', 2), 2) = any (v_wanted)
        order by t.n
    loop
        if v_token[1] is not null then
            v_depth := v_depth + 1;
            v_node[v_depth] := v_token[1];
            v_type[v_depth] := null;
            v_child[v_depth] := null;
            v_children[v_depth] := 0;
            v_mark[v_depth] := null;
            if v_token[1] = 'QUERY' then
                v_level := v_level + 1;
            elsif v_token[1] <> all (v_known) then
                v_problems := v_problems || format('unknown expression %s', v_token[1]);
            end if;
            continue;
        elsif v_token[2] is not null then
            v_closed := v_node[v_depth];
            case v_closed
                when 'SCALARARRAYOPEXPR', 'BOOLEXPR', 'NULLTEST', 'BOOLEANTEST', 'ROWCOMPAREEXPR' then
                    v_type[v_depth] := '16';
                when 'NAMEDARGEXPR', 'COLLATEEXPR', 'TARGETENTRY', 'COMMONTABLEEXPR' then
                    v_type[v_depth] := v_child[v_depth];
                when 'SUBLINK' then
                    v_type[v_depth] := case v_mark[v_depth]
                        when '0' then '16' when '1' then '16' when '2' then '16' when '3' then '16'
                        when '4' then v_child[v_depth]
                        when '6' then 'array of ' || v_child[v_depth]
                    end;
                when 'COERCEVIAIO' then
                    v_casts := v_casts || jsonb_build_array(jsonb_build_array(v_child[v_depth], v_type[v_depth]));
                when 'FUNCEXPR' then
                    if v_mark[v_depth] in ('2077', '3294') then
                        v_problems := v_problems || text 'current_setting of a name that is not constant';
                    end if;
                when 'QUERY' then
                    v_level := v_level - 1;
                    v_type[v_depth] := split_part(v_mark[v_depth], ',', 2);
                    if v_level = 0 then
                        v_result := v_mark[v_depth];
                    end if;
                else null;
            end case;
            v_depth := v_depth - 1;
            if v_depth > 0 then
                v_child[v_depth] := v_type[v_depth + 1];
                v_children[v_depth] := v_children[v_depth] + 1;
                if v_closed = 'TARGETENTRY' and v_node[v_depth] = 'QUERY' and v_mark[v_depth + 1] is null then
                    v_mark[v_depth] := concat(v_mark[v_depth], ',', coalesce(v_type[v_depth + 1], '?'));
                end if;
            end if;
            continue;
        end if;

        v_label := v_token[3];
        v_value := v_token[4];
        case v_label
            when 'varattno' then
                v_mark[v_depth] := v_value;
                if v_value::integer < 0 then
                    v_problems := v_problems || text 'reads a system column';
                elsif v_value = '0' then
                    v_problems := v_problems || text 'reads whole rows: name the columns';
                end if;
            when 'varlevelsup' then
                if v_value::integer = v_level and v_node[v_depth] = 'VAR' then
                    v_own := v_own || v_mark[v_depth]::integer;
                end if;
            when 'relid' then
                v_mark[v_depth] := v_value;
                if v_value <> '0' then
                    v_reads := v_reads || jsonb_build_array(jsonb_build_array(v_value::bigint, null));
                end if;
            when 'selectedCols' then
                -- Bit n stands for column n - 7: those below 1 are system columns and, as 0, the whole row.
                select v_reads || coalesce(
                        jsonb_agg(jsonb_build_array(v_mark[v_depth]::bigint, c.bit[1]::integer - 7)), '[]'
                    ),
                    case
                        when bool_or(c.bit[1]::integer <= 7)
                            then v_problems || text 'reads whole rows or a system column: name the columns'
                        else v_problems
                    end
                into v_reads, v_problems
                from regexp_matches(v_value, '[0-9]+', 'g') c (bit);
            when 'funcid' then
                v_mark[v_depth] := v_value;
                v_functions := v_functions || v_value;
            when 'opfuncid', 'hashfuncid', 'negfuncid', 'aggfnoid' then
                v_functions := v_functions || v_value;
            when 'opno' then
                v_mark[v_depth] := v_value;
                v_operators := v_operators || v_value;
            when 'opnos' then
                v_operators := v_operators || array(
                    select o.part[1] from regexp_matches(v_value, '[0-9]+', 'g') o (part)
                );
            when 'opfamilies' then
                if exists (select from regexp_matches(v_value, '[0-9]+', 'g') o (part) where o.part[1]::bigint >= 16384)
                    then
                    v_problems := v_problems || text 'compares rows by an operator family that is not built in';
                end if;
            when 'sortop' then
                v_operators := v_operators || v_value;
            when 'eqop' then
                v_operators := v_operators || v_value;
                v_groups := v_groups || v_value;
            when 'coltypes', 'colTypes', 'aggargtypes', 'funccoltypes', 'ctecoltypes' then
                v_types := v_types || array(select o.part[1] from regexp_matches(v_value, '[0-9]+', 'g') o (part));
            when 'refcontainertype', 'refelemtype', 'element_typeid' then
                v_types := v_types || v_value;
            when 'varcollid', 'constcollid', 'inputcollid', 'funccollid', 'opcollid', 'resultcollid', 'collOid' then
                v_collations := v_collations || v_value;
            when 'constvalue' then
                -- The name a setting is asked for: the first argument, a text behind its four bytes of length.
                v_at := v_depth - 1;
                if v_at > 0 and v_node[v_at] = 'FUNCEXPR' and v_mark[v_at] in ('2077', '3294')
                    and v_children[v_at] = 0 and v_type[v_depth] = '25' and v_token[5] is not null then
                    v_settings := v_settings || (
                        select convert_from(string_agg(
                            decode(lpad(to_hex((b.byte::integer + 256) % 256), 2, '0'), 'hex'), '' order by b.n
                        ), 'UTF8')
                        from regexp_split_to_table(btrim(v_token[5]), ' ') with ordinality b (byte, n)
                        where b.n > 4
                    );
                    v_mark[v_at] := null;
                end if;
            when 'resjunk' then
                v_mark[v_depth] := nullif(v_value, 'false');
            when 'limitCount', 'limitOffset' then
                if v_value is null and not (v_depth > 1 and v_node[v_depth - 1] = 'SUBLINK'
                    and v_mark[v_depth - 1] = '0') then
                    v_problems := v_problems || text 'LIMIT or OFFSET: which rows it takes is not determined';
                end if;
            when 'hasDistinctOn' then
                if v_value = 'true' then
                    v_problems := v_problems || text 'DISTINCT ON: which rows it takes is not determined';
                end if;
            when 'hasModifyingCTE', 'hasForUpdate' then
                if v_value = 'true' then
                    v_problems := v_problems || text 'writes or locks rows';
                end if;
            when 'commandType' then
                if v_value <> '1' then
                    v_problems := v_problems || text 'does more than select';
                end if;
            when 'funcordinality' then
                if v_value = 'true' then
                    v_problems := v_problems || text 'WITH ORDINALITY: the order of rows is not determined';
                end if;
            when 'subLinkType' then
                v_mark[v_depth] := v_value;
                if v_value = '6' then
                    v_at := v_depth - 1;
                    while v_at > 0 and v_node[v_at] in ('RELABELTYPE', 'ARRAYCOERCEEXPR') loop
                        v_at := v_at - 1;
                    end loop;
                    -- 2750 to 2752: &&, @> and <@ of arrays.
                    if v_at = 0 or not (
                        v_node[v_at] = 'SCALARARRAYOPEXPR'
                        or v_node[v_at] = 'OPEXPR' and v_mark[v_at] in ('2750', '2751', '2752')
                    ) then
                        v_problems := v_problems || text 'array(select ...) outside of = any (...): '
                            'the order of rows is not determined';
                    end if;
                end if;
            when 'op' then
                if v_node[v_depth] = 'SQLVALUEFUNCTION' then
                    v_values := true;
                    -- 9 to 12: current_role, current_user, user, session_user.
                    if v_value::integer not between 9 and 12 then
                        v_problems := v_problems || case
                            when v_value::integer < 9 then text 'asks for the time'
                            else text 'asks for the catalogue or schema in use'
                        end;
                    end if;
                end if;
            else
                v_type[v_depth] := v_value;
                v_types := v_types || v_value;
                if v_label = 'resulttype' and v_node[v_depth] = 'COERCETODOMAIN' then
                    v_casts := v_casts || jsonb_build_array(jsonb_build_array('domain', v_value));
                elsif v_node[v_depth] = 'SQLVALUEFUNCTION' then
                    v_values := true;
                end if;
        end case;
    end loop;
    return jsonb_build_object(
        'problems', to_jsonb(v_problems), 'own', to_jsonb(v_own), 'reads', v_reads,
        'functions', to_jsonb(v_functions), 'operators', to_jsonb(v_operators), 'types', to_jsonb(v_types),
        'groups', to_jsonb(v_groups), 'collations', to_jsonb(v_collations), 'casts', v_casts,
        'settings', to_jsonb(v_settings), 'values', v_values,
        'result', to_jsonb(string_to_array(substr(v_result, 2), ','))
    );
end
$$;

comment on function sync_internal.scan_tree(text) is 'What a stored expression tree reads and calls.';
