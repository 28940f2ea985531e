"""Many users' requests in one commit: none touches another's, and each stands alone."""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    CAROL,
    DEMO,
    LAUNCH,
    TASK_1,
    TASK_2,
    TASK_3,
    TASK_4,
    TOMATOES,
    Gate,
    call,
    create,
    live,
    new_id,
    set_,
    title,
    tx,
    value,
)

pytestmark = pytest.mark.both_versions


def titles(conn: psycopg.Connection[Any], *tasks: str) -> list[str]:
    query = "select title from tasks where id = any(%s::uuid[]) order by id"
    return [row[0] for row in conn.execute(query, (list(tasks),)).fetchall()]


def test_refused_one_does_not_stop_the_others(gate: Gate, conn: psycopg.Connection) -> None:
    answer = gate.send(
        ALICE,
        {
            "transactions": [
                tx(title(TASK_1, "one")),
                tx(title(TOMATOES, "not hers")),
                tx({"type": "nonsense"}),
                tx(title(TASK_1, "three"), expect=[{"table": "tasks", "id": TASK_1, "version": 1}]),
                tx(title(TASK_2, "four")),
            ]
        },
    )
    assert answer.status == 200
    assert answer.outcomes == ["applied", "refused", "refused", "refused", "applied"]
    codes = [result.get("error", {}).get("code") for result in answer.body["results"]]
    assert codes == [None, "forbidden", "unknown_operation", "conflict", None]
    assert titles(conn, TASK_1, TASK_2) == ["one", "four"]
    assert set(answer.body["recordMap"]["tasks"]) == {TASK_1, TASK_2}


def test_refused_request_does_not_stop_those_of_others(
    gate: Gate, conn: psycopg.Connection
) -> None:
    answers = gate.write_all(
        [
            (ALICE, tx(title(TASK_1, "one"))),
            (CAROL, tx(title(TASK_2, "not hers"))),
            (BOB, "{no json"),
            (None, tx(title(TASK_2, "nobody's"))),
            (BOB, {"transactions": []}),
            (CAROL, tx(title(TOMATOES, "hers"))),
        ]
    )
    assert [answer.status for answer in answers] == [200, 403, 400, 403, 400, 200]
    assert not any(answer.again for answer in answers)
    assert titles(conn, TASK_1, TOMATOES) == ["one", "hers"]


def test_operations_of_a_refused_transaction_leave_nothing(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor, made = gate.cursor(), new_id()
    answer = gate.write(
        ALICE,
        create("boards", made, workspaceId=DEMO, name="new"),
        title(TASK_1, "changed"),
        title(TOMATOES, "not hers"),
    )
    assert answer.status == 403
    assert gate.changes(cursor)["changes"] == []
    assert value(conn, "select count(*) from boards where id = %s", made) == 0


def test_versions_of_a_transaction_grow_by_one_for_each_record(
    gate: Gate, conn: psycopg.Connection
) -> None:
    query = "select id::text, version from tasks where id = any(%s::uuid[])"
    before: dict[str, int] = dict(conn.execute(query, ([TASK_1, TASK_2],)).fetchall())
    answer = gate.applied(
        ALICE,
        title(TASK_1, "a"),
        title(TASK_2, "b"),
        title(TASK_1, "c"),
        set_("tasks", TASK_1, "priority", "low"),
        set_("tasks", TASK_2, "metadata.x.y", 1),
    )
    told = {entry["id"]: entry["version"] for entry in answer.body["versions"]}
    assert told == {id_: number + 1 for id_, number in before.items()}
    assert told == dict(conn.execute(query, ([TASK_1, TASK_2],)).fetchall())


def test_what_needs_a_refused_create_is_blocked(gate: Gate) -> None:
    board, task, comment = new_id(), new_id(), new_id()
    refused = tx(create("boards", board, workspaceId=new_id(), name="nowhere"))
    child = tx(create("tasks", task, boardId=board, title="child"))
    grandchild = tx(create("comments", comment, taskId=task, content="grandchild"))
    itself = tx(set_("boards", board, "name", "itself"))
    free = tx(title(TASK_1, "free"))
    answer = gate.send(ALICE, {"transactions": [refused, child, grandchild, itself, free]})
    assert answer.outcomes == ["refused", "refused", "refused", "refused", "applied"]
    errors = [result.get("error", {}) for result in answer.body["results"]]
    assert [error.get("status") for error in errors] == [403, 424, 424, 424, None]
    assert [error.get("code") for error in errors[1:4]] == ["blocked"] * 3
    assert [error.get("blockedBy") for error in errors[1:4]] == [
        refused["txId"], child["txId"], refused["txId"],
    ]  # fmt: skip


def test_create_by_set_counts_as_create_for_what_needs_it(gate: Gate) -> None:
    board = new_id()
    refused = tx(set_("boards", board, "id", board), set_("boards", board, "name", "x"))
    child = tx(create("tasks", new_id(), boardId=board, title="child"))
    answer = gate.send(ALICE, {"transactions": [refused, child]})
    assert answer.body["results"][1]["error"]["blockedBy"] == refused["txId"]


def test_blocked_one_can_be_sent_again_once_the_create_is_there(gate: Gate) -> None:
    board = new_id()
    child = tx(create("tasks", new_id(), boardId=board, title="child"))
    wrong = tx(create("boards", board, workspaceId=new_id(), name="nowhere"))
    gate.send(ALICE, {"transactions": [wrong, child]})
    right = tx(create("boards", board, workspaceId=DEMO, name="here"))
    assert gate.send(ALICE, {"transactions": [right, child]}).outcomes == ["applied"] * 2


def test_all_of_an_author_behind_a_retry_are_left_untried(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    gate.conn.execute("set lock_timeout = '50ms'")
    holder = db.connect(autocommit=False)
    holder.execute("select from tasks where id = %s for update", (TASK_2,))
    batch = [tx(title(task, "mine")) for task in (TASK_1, TASK_2, TASK_3, TASK_4)]
    answer = gate.send(ALICE, {"transactions": batch})
    assert (answer.status, answer.again) == (200, True)
    assert answer.outcomes == ["applied", "retry", "retry", "retry"]
    assert titles(conn, TASK_1, TASK_3, TASK_4)[0] == "mine"
    assert "mine" not in titles(conn, TASK_3, TASK_4)
    holder.rollback()
    again = gate.send(ALICE, {"transactions": batch})
    assert again.outcomes == ["duplicate", "applied", "applied", "applied"]


def test_row_locked_elsewhere_makes_only_its_own_writers_wait(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    holder = db.connect(autocommit=False)
    holder.execute("select from tasks where id = %s for update", (TASK_1,))
    answers = gate.write_all(
        [
            (ALICE, tx(title(TASK_1, "locked"))),
            (BOB, tx(title(TASK_2, "free"))),
            (BOB, tx(title(TASK_1, "locked"), title(TASK_3, "with it"))),
            (CAROL, tx(title(TOMATOES, "free"))),
        ]
    )
    assert [answer.again for answer in answers] == [True, False, True, False]
    # The holder still holds its lock, and the others are there for all to see.
    assert titles(conn, TASK_2, TOMATOES) == ["free", "free"]
    assert titles(conn, TASK_3) != ["with it"]
    holder.rollback()


def test_many_writers_of_a_locked_row_cost_the_batch_no_more_than_two(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    conn.execute("select sync.configure('batch_lock_timeout_ms', 500)")
    holder = db.connect(autocommit=False)
    holder.execute("select from tasks where id = %s for update", (TASK_1,))
    # Twelve waits would take six seconds; two, one.
    gate.conn.execute("set statement_timeout = '4s'")
    locked: list[tuple[str | None, Any]] = [
        (user, tx(title(TASK_1, "locked"))) for user in (ALICE, BOB) * 6
    ]
    answers = gate.write_all([*locked, (CAROL, tx(title(TOMATOES, "free")))])
    assert [answer.again for answer in answers] == [True] * 12 + [False]
    assert titles(conn, TOMATOES) == ["free"]
    holder.rollback()


def test_batch_lock_timeout_does_not_outlive_the_call(gate: Gate) -> None:
    query = "select current_setting('lock_timeout')"
    before = value(gate.conn, query)
    gate.write_all([(ALICE, tx(title(TASK_1, "a"))), (BOB, tx(title(TASK_2, "b")))])
    assert value(gate.conn, query) == before != "30ms"


def test_record_that_a_later_one_removed_is_not_shown(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "docs", "id text primary key, note text", ", p_hard_delete => true")
    delete = {"type": "delete", "table": "docs", "id": "gone"}
    batch = [
        tx(create("docs", "kept", note="k")),
        tx(create("docs", "gone", note="g")),
        tx(delete, set_("docs", "kept", "note", None)),
    ]
    for outcome in ("applied", "duplicate"):
        answer = gate.send(BOB, {"transactions": batch})
        assert answer.outcomes == [outcome] * 3
        assert answer.body["recordMap"] == {
            "docs": {"kept": {"id": "kept", "version": 2, "note": None}}
        }


def test_dry_run_answers_and_leaves_nothing(gate: Gate, conn: psycopg.Connection) -> None:
    cursor, id_ = gate.cursor(), new_id()
    request = {
        "transactions": [
            tx(create("tasks", id_, boardId=LAUNCH, title="tried")),
            tx(title(id_, "and changed")),
            tx(title(TOMATOES, "not hers")),
        ],
        "dryRun": True,
    }
    answer = gate.send(ALICE, request)
    assert answer.outcomes == ["applied", "applied", "refused"]
    assert answer.body["recordMap"]["tasks"][id_]["title"] == "and changed"
    assert gate.changes(cursor)["changes"] == []
    assert value(conn, "select count(*) from sync_internal.receipts") == 0
    assert gate.send(ALICE, request | {"dryRun": False}).outcomes == [
        "applied",
        "applied",
        "refused",
    ]


@pytest.mark.parametrize("dry_run", ["true", "yes", 1, 0, None, [], {}], ids=str)
def test_dry_run_of_another_form_is_refused_and_writes_nothing(
    gate: Gate, conn: psycopg.Connection, dry_run: object
) -> None:
    for body in (
        tx(title(TASK_1, "wet"), dryRun=dry_run),
        {"transactions": [tx(title(TASK_1, "wet"))], "dryRun": dry_run},
    ):
        answer = gate.send(ALICE, body)
        assert (answer.status, answer.code) == (400, "bad_request")
    assert titles(conn, TASK_1) != ["wet"]


def test_dry_run_beside_others_leaves_theirs(gate: Gate, conn: psycopg.Connection) -> None:
    answers = gate.write_all(
        [
            (ALICE, tx(title(TASK_1, "kept"))),
            (BOB, tx(title(TASK_2, "tried"), dryRun=True)),
            (BOB, tx(title(TASK_3, "kept too"))),
        ]
    )
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert answers[1].body["recordMap"]["tasks"][TASK_2]["title"] == "tried"
    assert titles(conn, TASK_1, TASK_2, TASK_3)[::2] == ["kept", "kept too"]
    assert titles(conn, TASK_2) != ["tried"]


def test_dry_run_by_argument(gate: Gate, conn: psycopg.Connection) -> None:
    import json

    from tests.sql.engine import claims_of

    rows = gate.conn.execute(
        "select status, body from sync.gateway_write(%s::text[], %s::text[], '{true}')",
        ([claims_of(ALICE)], [json.dumps(tx(title(TASK_1, "tried")))]),
    ).fetchall()
    assert rows[0][0] == 200
    assert titles(conn, TASK_1) != ["tried"]
    assert value(conn, "select count(*) from sync_internal.receipts") == 0


def test_role_and_claims_are_gone_after_the_call(gate: Gate) -> None:
    query = "select current_user || ' ' || current_setting('request.jwt.claims', true)"
    bodies: list[tuple[str | None, Any]] = [
        (ALICE, tx(title(TASK_1, "fine"))),
        (ALICE, tx(title(TOMATOES, "refused"))),
        (BOB, "{no json"),
        (None, tx(title(TASK_1, "nobody's"))),
    ]
    with gate.conn.transaction():
        gate.write_all(bodies)
        assert value(gate.conn, query) == "rowcast_gateway "
        for body in bodies:
            gate.write_all([body])
            assert value(gate.conn, query) == "rowcast_gateway "
        gate.subscribe(ALICE, "tasks")
        gate.visible(ALICE, {"tasks": [TASK_1]})
        assert value(gate.conn, query) == "rowcast_gateway "
    assert value(gate.conn, query) in ("rowcast_gateway ", None)


def test_mapped_settings_are_of_the_author_and_gone_after_the_call(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("select sync.map_identity('app.user_id', 'sub')")
    live(
        conn,
        "marks",
        "id text primary key, author text default current_setting('app.user_id', true)",
    )
    conn.execute("insert into marks (id) values ('plain')")
    answers = gate.write_all(
        [
            (ALICE, tx(create("marks", "a"))),
            (BOB, tx(create("marks", "b"))),
            (CAROL, tx(create("marks", "c"))),
        ]
    )
    assert [answer.status for answer in answers] == [200] * 3, answers
    rows: dict[str, Any] = dict(conn.execute("select id, author from marks").fetchall())
    assert rows == {"plain": None, "a": ALICE, "b": BOB, "c": CAROL}
    with gate.conn.transaction():
        gate.write_all([(ALICE, tx(create("marks", "d")))])
        assert value(gate.conn, "select current_setting('app.user_id', true)") == ""


LEAVE = """
    create function public.leave_setting() returns trigger language plpgsql as $$
    begin
        perform set_config('app.left', 'by ' || new.id, true);
        return new;
    end
    $$;
    create trigger leave before insert on public.leaving
    for each row execute function public.leave_setting();
    select sync.refresh('public.leaving');
"""


def leaving(conn: psycopg.Connection[Any], options: str = "") -> None:
    live(conn, "leaving", "id text primary key", options)
    live(conn, "seeing", "id text primary key, seen text default current_setting('app.left', true)")
    conn.execute(LEAVE.encode())


def test_setting_a_trigger_left_is_not_seen_by_the_next_author(
    gate: Gate, conn: psycopg.Connection
) -> None:
    leaving(conn)
    left, seen = gate.write_all(
        [(ALICE, tx(create("leaving", "a"))), (BOB, tx(create("seeing", "b")))]
    )
    assert (left.again, seen.again, seen.status) == (True, False, 200)
    assert value(conn, "select count(*) from leaving") == 0
    assert value(conn, "select seen from seeing where id = 'b'") in (None, "")
    assert gate.send(ALICE, tx(create("leaving", "a"))).status == 200


def test_one_hidden_among_harmless_operations_still_runs_alone(
    gate: Gate, conn: psycopg.Connection
) -> None:
    leaving(conn)
    mixed = {
        "transactions": [tx(title(TASK_1, "x")), tx(title(TASK_2, "y"), create("leaving", "a"))]
    }
    first, second = gate.write_all([(ALICE, mixed), (BOB, tx(title(TASK_3, "z")))])
    assert (first.again, second.again) == (True, False)
    assert titles(conn, TASK_1) != ["x"]


def test_setting_left_through_a_cascade_is_not_seen_by_the_next_author(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(conn, "seeing", "id text primary key, seen text default current_setting('app.left', true)")
    live(conn, "parents", "id text primary key", ", p_hard_delete => true")
    live(
        conn, "children", "id text primary key, parent_id text references parents on delete cascade"
    )
    conn.execute(
        """
        create function public.leave_setting() returns trigger language plpgsql as $$
        begin
            perform set_config('app.left', 'by a cascade', true);
            return null;
        end
        $$;
        create trigger leave after delete on public.children
        for each row execute function public.leave_setting();
        insert into parents values ('p'); insert into children values ('c', 'p');
        select sync.refresh('public.children');
        """
    )
    delete = tx({"type": "delete", "table": "parents", "id": "p"})
    answers = gate.write_all([(ALICE, delete), (BOB, tx(create("seeing", "b")))])
    assert answers[1].status == 200
    assert value(conn, "select seen from seeing where id = 'b'") in (None, "")
    if answers[0].again:
        assert gate.send(ALICE, delete).status == 200


def test_table_said_to_be_safe_shares_the_commit(gate: Gate, conn: psycopg.Connection) -> None:
    leaving(conn, ", p_batch => true")
    first, second = gate.write_all(
        [(ALICE, tx(create("leaving", "a"))), (BOB, tx(title(TASK_1, "x")))]
    )
    assert (first.again, second.again) == (False, False)
    xids = (
        "select count(distinct xid) from sync_internal.changes where record_id in ('a', %s) "
        "and version > 1 or record_id = 'a'"
    )
    assert value(conn, xids, TASK_1) == 1


def test_trusted_triggers_are_not_minded(gate: Gate, conn: psycopg.Connection) -> None:
    leaving(conn)
    found = "select sync_internal.runs_alone('leaving'), sync_internal.rereads('leaving')"
    assert conn.execute(found).fetchone() == (True, True)
    name = value(
        conn,
        "select tgname from pg_trigger where tgrelid = 'leaving'::regclass"
        " and not tgisinternal and tgname not like 'zzz%'",
    )
    conn.execute("select sync.trust_triggers('leaving', array[%s])", (name,))
    assert conn.execute(found).fetchone() == (False, False)
    conn.execute("select sync.refresh('leaving')")
    assert conn.execute(found).fetchone() == (False, False)
    # Whatever else there is is minded.
    conn.execute("alter trigger " + name + " on leaving rename to another")
    conn.execute("select sync.refresh('leaving')")
    assert conn.execute(found).fetchone() == (True, True)


def test_only_triggers_of_ones_own_live_table_can_be_trusted(
    db: Database, conn: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no trigger nowhere"):
        conn.execute("select sync.trust_triggers('tasks', '{nowhere}')")
    conn.execute("create table dull (id uuid primary key)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is not live"):
        conn.execute("select sync.trust_triggers('dull', '{}')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("rowcast_gateway").execute("select sync.trust_triggers('tasks', '{}')")


def test_calls_run_alone(gate: Gate, conn: psycopg.Connection) -> None:
    done, other = gate.write_all(
        [(ALICE, tx(call("completeBoard", boardId=LAUNCH))), (CAROL, tx(title(TOMATOES, "x")))]
    )
    assert (done.again, other.again, other.status) == (True, False, 200)
    query = "select count(*) from tasks where board_id = %s and status <> 'done'"
    assert value(conn, query, LAUNCH) > 0


DEFERRED = """
    create table public.heads (id text primary key);
    alter table public.limbs add constraint limbs_head foreign key (head)
        references public.heads (id) deferrable initially deferred;
    select sync.refresh('public.limbs');
"""


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [1, 2, 0]])
def test_deferred_constraint_of_one_author_fails_only_his(
    gate: Gate, conn: psycopg.Connection, order: list[int]
) -> None:
    live(conn, "limbs", "id text primary key, head text")
    conn.execute(DEFERRED.encode())
    requests: list[tuple[str | None, Any]] = [
        (ALICE, tx(title(TASK_1, "hers"))),
        (BOB, tx(create("limbs", "b", head="nobody's"))),
        (CAROL, tx(title(TOMATOES, "hers too"))),
    ]
    answers = gate.write_all([requests[n] for n in order])
    statuses = [answer.status for answer in answers]
    assert statuses == [[200, 403, 200][n] for n in order]
    assert titles(conn, TASK_1, TOMATOES) == ["hers", "hers too"]
    assert value(conn, "select count(*) from limbs") == 0


def test_deferred_constraint_met_within_the_transaction_passes(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(conn, "heads", "id text primary key")
    live(conn, "limbs", "id text primary key, head text")
    conn.execute(
        """
        alter table public.limbs add constraint limbs_head foreign key (head)
            references public.heads (id) deferrable initially deferred;
        alter table public.limbs add constraint limbs_one_head unique (head) deferrable;
        select sync.refresh('public.limbs');
        """
    )
    gate.applied(ALICE, create("limbs", "l", head="h"), create("heads", "h"))
    gate.applied(ALICE, create("limbs", "m", head="i"), create("heads", "i"))
    # Unique is only looked at in the end: the two swap.
    gate.applied(ALICE, set_("limbs", "l", "head", "i"), set_("limbs", "m", "head", "h"))


def test_parents_come_first_however_they_are_sent(gate: Gate) -> None:
    workspace, board, task, comment = new_id(), new_id(), new_id(), new_id()
    gate.applied(
        CAROL,
        create("comments", comment, taskId=task, content="c"),
        create("tasks", task, boardId=board, title="t"),
        create("boards", board, workspaceId=workspace, name="b"),
        create("workspaces", workspace, name="w"),
    )
    found = gate.get_records(
        CAROL, ("comments", comment), ("tasks", task), ("boards", board), ("workspaces", workspace)
    )
    assert found["gone"] == []


def test_calls_stand_where_they_were_sent(gate: Gate, conn: psycopg.Connection) -> None:
    late = new_id()
    answer = gate.applied(
        ALICE,
        set_("tasks", TASK_1, "status", "todo"),
        call("completeBoard", boardId=LAUNCH),
        create("tasks", late, boardId=LAUNCH, title="late"),
        set_("tasks", TASK_2, "status", "todo"),
    )
    query = "select status from tasks where id = %s"
    assert [value(conn, query, task) for task in (TASK_1, late, TASK_2)] == ["done", "todo", "todo"]
    assert len(answer.body["values"]) == 1
    told = {entry["id"]: entry["version"] for entry in answer.body["versions"]}
    now: dict[str, int] = dict(
        conn.execute(
            "select id::text, version from tasks where id = any(%s::uuid[])", (list(told),)
        ).fetchall()
    )
    assert told == now


@pytest.mark.parametrize("beside", [[], [title(TASK_1, "beside")]])
def test_record_its_trigger_takes_away_is_applied_and_not_shown(
    gate: Gate, conn: psycopg.Connection, beside: list[Any]
) -> None:
    conn.execute(
        """
        create table public.boxes (
            id text primary key, owner uuid not null default auth.uid(), note text,
            version integer not null default 1
        );
        alter table public.boxes enable row level security;
        create policy own on public.boxes using (owner = (select auth.uid())) with check (true);
        grant select, insert, update on public.boxes to authenticated;
        create function public.give() returns trigger language plpgsql security definer as $$
        begin
            update public.boxes set owner = gen_random_uuid(), note = 'given'
            where id = new.id and new.note = 'give';
            return null;
        end
        $$;
        create trigger give after insert or update on public.boxes
        for each row execute function public.give();
        select sync.enable('public.boxes');
        """
    )
    gate.applied(ALICE, create("boxes", "a"), create("boxes", "b"))
    for operation in (set_("boxes", "a", "note", "give"), create("boxes", "c", note="give")):
        answer = gate.applied(ALICE, operation, *beside)
        assert answer.body["recordMap"].get("boxes", {}) == {}
        assert all(isinstance(entry["version"], int) for entry in answer.body["versions"])
    assert value(conn, "select count(*) from boxes where note = 'given'") == 2


def test_role_that_is_not_served_is_refused_alone(gate: Gate, conn: psycopg.Connection) -> None:
    import json

    from tests.sql.engine import claims_of

    rows = gate.conn.execute(
        "select status, body::json ->> 'code' from sync.gateway_write(%s::text[], %s::text[])",
        (
            [
                claims_of(ALICE, role="service_role"),
                claims_of(CAROL),
                claims_of(BOB, role="postgres"),
            ],
            [json.dumps(tx(title(task, "x"))) for task in (TASK_1, TOMATOES, TASK_2)],
        ),
    ).fetchall()
    assert rows == [(401, "unauthorized"), (200, None), (401, "unauthorized")]
    assert titles(conn, TASK_1, TASK_2, TOMATOES) != ["x", "x", "x"]


def test_error_of_the_application_is_the_authors_own(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.configure('max_transactions', 60)")
    live(conn, "strict", "id text primary key, say text", ", p_batch => true")
    conn.execute(
        """
        create function public.complain() returns trigger language plpgsql as $$
        begin
            execute 'do $do$ begin ' || new.say || ' end $do$';
            return new;
        end
        $$;
        create trigger complain before insert on public.strict
        for each row execute function public.complain();
        select sync.refresh('public.strict');
        """
    )
    said = {
        "raise 'Not on a Sunday';": (400, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = '{\"code\": \"taken\"}';": (
            409,
            "taken",
        ),
        "raise sqlstate 'PT409' using message = 'm';": (409, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = 'no json';": (409, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = '[1]';": (409, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = '\"text\"';": (409, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = 'null';": (409, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = '{oops \"key\"';": (409, "refused"),
        "raise 'm' using detail = '{\"key\": oops';": (400, "refused"),
        "raise sqlstate 'PT409' using message = 'm', detail = '{\"conflicts\": 5}';": (
            409,
            "refused",
        ),
        "raise sqlstate 'PT409' using message = 'm', detail = "
        '\'{"conflicts": [5, {"table": "tasks", "id": "no uuid"}]}\';': (409, "refused"),
        "raise sqlstate 'PTABC' using message = 'm';": (400, "refused"),
        "raise sqlstate 'PT503' using message = 'm';": (503, "refused"),
        "perform 1 / 0;": (400, "bad_value"),
        "raise division_by_zero;": (400, "bad_value"),
        "assert false;": (500, "internal"),
        "raise no_data_found;": (500, "internal"),
        "raise sqlstate 'XX000';": (500, "internal"),
        "raise sqlstate 'XX001';": (500, "internal"),
        "raise sqlstate '42703';": (500, "internal"),
        "perform no_such_function();": (500, "internal"),
        "insert into no_such_table default values;": (500, "internal"),
    }
    for number, (say, expected) in enumerate(said.items()):
        answers = gate.write_all(
            [
                (ALICE, tx(title(TASK_1, f"{number}"))),
                (BOB, tx(create("strict", new_id(), say=say))),
                (CAROL, tx(title(TOMATOES, f"{number}"))),
            ]
        )
        assert [answers[0].status, answers[2].status] == [200, 200], say
        assert (answers[1].status, answers[1].code) == expected, say
        assert "query" not in str(answers[1].body).lower(), say
    assert titles(conn, TASK_1, TOMATOES) == [f"{len(said) - 1}"] * 2
