"""Files in SQL: who may add, read and confirm them, what counts against whom, what is swept."""

import json
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    ALICE_SAID,
    BOB,
    CAROL,
    LAUNCH,
    TASK_1,
    Answer,
    Background,
    Gate,
    claims_of,
    create,
    live,
    new_id,
    pid,
    refusal_of,
    set_,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions

SHA = "ab" * 32
Json = dict[str, Any]


class Files:
    """A gateway that believes what a test says of its store."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def create(self, user: str | None = ALICE, **more: Any) -> tuple[str, Answer]:
        id_ = new_id()
        given = {"taskId": TASK_1, "name": "a.txt", "type": "text/plain", "size": "5", **more}
        answer = self.gate.write(user, create("taskFiles", id_, **given))
        return id_, answer

    def made(self, user: str = ALICE, **more: Any) -> str:
        id_, answer = self.create(user, **more)
        assert answer.status == 200, answer
        return id_

    def file(self, user: str | None, id_: str, what: str, table: str = "taskFiles") -> Json:
        body = json.dumps({"table": table, "id": id_})
        return self._ask("select sync.gateway_file(%s, %s, %s)", claims_of(user), body, what)

    def confirm(
        self, user: str, id_: str, size: int = 5, sha: str = SHA, object_: str = "o"
    ) -> Json:
        body = json.dumps({"table": "taskFiles", "id": id_})
        statement = "select sync.gateway_confirm_file(%s, %s, %s, %s, %s)"
        return self._ask(statement, claims_of(user), body, object_, size, sha)

    def ready(self, user: str = ALICE, **more: Any) -> str:
        id_ = self.made(user, **more)
        self.confirm(user, id_)
        return id_

    def sweep(self) -> dict[str, str | None]:
        found = value(self.gate.conn, "select sync.gateway_sweep()")
        return {entry["id"]: entry["keep"] for entry in found}

    def swept(self, **_: Any) -> int:
        found = value(self.gate.conn, "select sync.gateway_sweep()")
        done: int = value(self.gate.conn, "select sync.gateway_swept(%s)", json.dumps(found))
        return done

    def record(self, user: str, id_: str) -> Json | None:
        found = self.gate.get_records(user, ("taskFiles", id_))["recordMap"]
        record: Json | None = found.get("taskFiles", {}).get(id_)
        return record

    def _ask(self, statement: str, *parameters: Any) -> Json:
        try:
            answer: Json = json.loads(value(self.gate.conn, statement, *parameters))
        except psycopg.Error as error:
            return refusal_of(error)
        return answer


@pytest.fixture
def files(gate: Gate) -> Files:
    return Files(gate)


def code(answer: Answer) -> str | None:
    return answer.code


# --- creating ------------------------------------------------------------------------------------


def test_who_may_edit_the_parent_may_attach(files: Files) -> None:
    for user in (ALICE, BOB):
        record = files.record(user, files.made(user))
        assert record is not None
        assert record["state"] == "pending"
        assert record["createdBy"] == user
        assert record["sha256"] is None
    _, refused = files.create(CAROL)
    assert (refused.status, refused.code) == (403, "forbidden")
    _, missing = files.create(ALICE, taskId=new_id())
    assert (missing.status, missing.code) == (403, "forbidden")


def test_reading_the_parent_is_not_enough(db: Database, files: Files) -> None:
    """Comments are read by all who see their task, and edited by their author alone."""
    conn = db.connect()
    conn.execute("select sync.files('public.comment_files', 'public.comments', 'comment_id')")
    given = {"commentId": ALICE_SAID, "name": "x", "size": "1"}
    id_ = new_id()
    assert files.gate.write(BOB, create("commentFiles", id_, **given)).status == 403
    files.gate.applied(ALICE, create("commentFiles", id_, **given))
    assert files.gate.get_records(BOB, ("commentFiles", id_))["gone"] == []
    assert files.file(BOB, id_, "upload", "commentFiles")["status"] == 403
    assert files.gate.write(BOB, set_("commentFiles", id_, "name", "y")).status == 403


@pytest.mark.parametrize("key", ["state", "createdBy", "createdAt"])
def test_what_the_server_says_nobody_else_says(files: Files, key: str) -> None:
    given = {"state": "ready", "createdBy": BOB, "createdAt": "2020-01-01T00:00:00.000000Z"}
    _, answer = files.create(ALICE, **{key: given[key]})
    assert (answer.status, answer.code) == (403, "forbidden_key")
    id_ = files.made()
    assert files.gate.write(ALICE, set_("taskFiles", id_, key, given[key])).status == 403
    for fixed in ({"size": "6"}, {"type": "a/b"}, {"sha256": SHA}, {"taskId": TASK_1}):
        ((name, new),) = fixed.items()
        assert files.gate.write(ALICE, set_("taskFiles", id_, name, new)).status == 403


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../etc/passwd", "a\\b", "a\r\nSet-Cookie: x", "a\tb", "x" * 256,
     "gpj.\u202eexe.doc", "a\u2067b", "a\u200fb", "a\x7fb", "a\u2028b"],
)  # fmt: skip
def test_names_that_deceive_are_refused(files: Files, name: str) -> None:
    _, answer = files.create(name=name)
    assert (answer.status, answer.code) == (400, "check_failed")


@pytest.mark.parametrize(
    "name", ["My #1 Pic.PNG", "x" * 255, "ä ö%20?&.pdf", "メモ.txt", "👨‍👩‍👧.png"]
)
def test_other_names_come_back_as_they_were(files: Files, name: str) -> None:
    record = files.record(BOB, files.made(name=name))
    assert record is not None
    assert record["name"] == name


@pytest.mark.parametrize(
    "type_", ["", "text", "TEXT/plain", "text/plain; charset=x", "a/b\r\n", "*/*"]
)
def test_types_are_plain(files: Files, type_: str) -> None:
    assert files.create(type=type_)[1].code == "check_failed"


def test_sizes_and_hashes_are_checked(files: Files) -> None:
    assert files.create(size="-1")[1].code == "check_failed"
    assert files.create(sha256="AB" * 32)[1].code == "check_failed"
    _, large = files.create(size="5368709121")
    assert (large.status, large.code, large.error["limit"]) == (413, "too_large", "max_file_bytes")


def test_id_counts_once_over_all_tables(files: Files) -> None:
    id_ = files.made()
    note = files.gate.query(ALICE, "notes", limit=1)["ids"][0]
    given = {"noteId": note, "name": "x", "size": "1"}
    assert files.gate.write(ALICE, create("noteFiles", id_, **given)).status in (403, 409)


# --- quota ---------------------------------------------------------------------------------------


def test_quota_counts_what_is_stored_of_one_user(db: Database, files: Files) -> None:
    conn = db.connect()
    conn.execute("select sync.configure('file_quota_bytes', 10)")
    first = files.made(size="6")
    _, refused = files.create(size="5")
    assert (refused.status, refused.code) == (422, "quota")
    files.made(BOB, size="10")
    files.made(size="4")
    # Deleted, it is still stored.
    files.gate.applied(ALICE, {"type": "delete", "table": "taskFiles", "id": first})
    assert files.create(size="1")[1].code == "quota"
    conn.execute(
        "update public.task_files set deleted = now() - interval '31 days' where id = %s", [first]
    )
    assert files.swept() == 1
    files.made(size="6")


def test_two_at_once_do_not_pass_the_quota_together(db: Database, files: Files) -> None:
    conn = db.connect()
    conn.execute("select sync.configure('file_quota_bytes', 10)")
    insert = "insert into public.task_files (task_id, name, size) values (%s, 'x', 6)"
    first, second = (db.connect(autocommit=False) for _ in range(2))
    for each in (first, second):
        each.execute("select sync.act_as(%s)", [ALICE])
    first.execute(insert, [TASK_1])
    waiting = Background(lambda: second.execute(insert, [TASK_1]))
    wait_blocked(conn, pid(second))
    first.commit()
    with pytest.raises(psycopg.Error) as refused:
        waiting.result()
    assert refused.value.sqlstate == "PT422"


# --- doors ---------------------------------------------------------------------------------------


def test_confirming_makes_it_ready_once(files: Files) -> None:
    id_ = files.made()
    link = files.file(ALICE, id_, "upload")
    assert link["until"] - link["expires"] == 60
    assert files.file(ALICE, id_, "download")["code"] == "not_ready"
    assert files.confirm(ALICE, id_)["state"] == "ready"
    record = files.record(BOB, id_)
    assert record is not None
    assert (record["state"], record["sha256"]) == ("ready", SHA)
    # Again, by another, with anything: nothing changes.
    again = files.confirm(BOB, id_, size=7, sha="cd" * 32, object_="other")
    assert (again["state"], again["sha256"], again["object"]) == ("ready", SHA, "o")
    assert files.record(BOB, id_) == record
    assert files.file(ALICE, id_, "upload")["code"] == "uploaded"
    down = files.file(BOB, id_, "download")
    assert (down["object"], down["name"]) == ("o", "a.txt")


def test_two_confirmations_at_once_are_one(db: Database, files: Files) -> None:
    id_ = files.made()
    body = json.dumps({"table": "taskFiles", "id": id_})
    statement = "select sync.gateway_confirm_file(%s, %s, %s, 5, %s)"
    first, second = (db.connect("rowcast_gateway", autocommit=False) for _ in range(2))
    first.execute(statement, [claims_of(ALICE), body, "first", SHA])
    waiting = Background(
        lambda: second.execute(statement, [claims_of(BOB), body, "second", SHA]).fetchone()
    )
    wait_blocked(db.connect(), pid(second))
    first.commit()
    answer = waiting.result()
    assert answer is not None
    assert json.loads(answer[0])["object"] == "first"
    second.commit()
    record = files.record(ALICE, id_)
    assert record is not None
    assert record["version"] == 2


def test_place_in_a_bucket_that_was_rejected_is_never_believed(files: Files) -> None:
    """One has read wrong bytes and removes them; another has found right ones there meanwhile."""
    id_ = files.made()

    def reject(user: str, attempt: int) -> Any:
        body = json.dumps({"table": "taskFiles", "id": id_})
        return files._ask(
            "select to_jsonb(sync.gateway_reject_upload(%s, %s, %s))::text",
            claims_of(user), body, attempt,
        )  # fmt: skip

    assert files.file(ALICE, id_, "confirm")["attempt"] == 0
    assert reject(CAROL, 0)["status"] == 403
    assert [reject(ALICE, 0), reject(BOB, 0)] == [True, False]
    assert files.confirm(ALICE, id_, object_="direct-0")["code"] == "missing"
    assert files.file(ALICE, id_, "upload")["attempt"] == 1
    # No more than a few times: what was rejected may still be there.
    assert [reject(ALICE, n) for n in range(1, 6)] == [True, True, True, False, False]
    assert files.confirm(ALICE, id_, object_="direct-4")["state"] == "ready"
    assert reject(ALICE, 4) is False


def test_sweep_waits_for_what_has_arrived_to_be_put_together(db: Database, files: Files) -> None:
    id_ = files.made()
    until = files.file(ALICE, id_, "upload")["until"]
    busy = "select extract(epoch from busy_until)::bigint from sync_internal.files where id = %s"
    assert value(db.connect(), busy, id_) == until + 3600


def test_bytes_that_are_not_those_named_are_refused(files: Files) -> None:
    id_ = files.made(sha256="cd" * 32)
    assert files.confirm(ALICE, id_)["code"] == "mismatch"
    assert files.confirm(ALICE, id_, size=4, sha="cd" * 32)["code"] == "mismatch"
    record = files.record(ALICE, id_)
    assert record is not None
    assert record["state"] == "pending"
    assert files.confirm(ALICE, id_, sha="cd" * 32)["state"] == "ready"


def test_who_loses_access_neither_confirms_nor_downloads(db: Database, files: Files) -> None:
    pending, ready = files.made(BOB), files.ready(BOB)
    files.file(BOB, pending, "upload")
    assert "object" in files.file(BOB, ready, "download")
    db.connect().execute("delete from public.workspace_members where user_id = %s", [BOB])
    answers = [
        files.confirm(BOB, pending),
        files.file(BOB, pending, "upload"),
        files.file(BOB, ready, "download"),
        files.file(BOB, new_id(), "download"),
    ]
    for answer in answers:
        assert (answer["status"], answer["code"]) == (403, "forbidden")
        assert set(answer) == {"status", "message", "code", "table", "id"}


def test_file_follows_its_parent(db: Database, files: Files) -> None:
    id_ = files.ready()
    garden = value(db.connect(), "select board_id from public.tasks where id = %s", TASK_1)
    assert str(garden) == LAUNCH
    conn = db.connect()
    conn.execute(
        "update public.tasks set board_id = (select b.id from public.boards b join "
        "public.workspace_members m on m.workspace_id = b.workspace_id and m.user_id = %s limit 1) "
        "where id = %s",
        [CAROL, TASK_1],
    )
    assert files.file(ALICE, id_, "download")["status"] == 403
    assert files.file(CAROL, id_, "download")["object"] == "o"


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"table": "taskFiles"}', '{"table": 1, "id": "x"}',
     '{"table": "taskFiles", "id": "../x"}', '{"table": "taskFiles", "id": null}'],
)  # fmt: skip
def test_requests_that_name_no_file_are_400(files: Files, body: str) -> None:
    for what in ("upload", "confirm", "download"):
        with pytest.raises(psycopg.Error) as refused:
            files.gate.conn.execute(
                "select sync.gateway_file(%s, %s, %s)", [claims_of(ALICE), body, what]
            )
        assert refused.value.sqlstate == "PT400"


def test_tables_that_hold_no_files_have_none(files: Files) -> None:
    for table in ("tasks", "nothing", "pg_class"):
        assert files.file(ALICE, TASK_1, "download", table)["code"] == "unknown_table"


def test_nobody_signed_in_gets_nothing(files: Files) -> None:
    id_ = files.ready()
    for what in ("upload", "confirm", "download"):
        assert files.file(None, id_, what)["status"] == 403


def test_doors_leave_no_role_behind(files: Files) -> None:
    files.ready()
    row = files.gate.conn.execute(
        "select current_user = session_user, current_setting('request.jwt.claims', true)"
    ).fetchone()
    assert row is not None
    assert row[0] is True
    assert row[1] in (None, "")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "rowcast_worker"])
def test_nobody_but_the_gateway_says_what_is_stored(tx: psycopg.Connection, role: str) -> None:
    for call in (
        "sync.gateway_file(null, '{}', 'upload')",
        "sync.gateway_confirm_file(null, '{}', 'o', 1, 'x')",
        "sync.gateway_file_key()",
        # A worker stores the files of imports, too.
        *(
            ["sync_internal.settle_file(gen_random_uuid(), 'o', 1, 'x')"]
            if role != "rowcast_worker"
            else []
        ),
        "sync_internal.expect_upload(gen_random_uuid(), 1)",
        "sync_internal.stored_file(gen_random_uuid())",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), tx.transaction():
            tx.execute(f"set local role {role}; select {call}".encode())


# --- sweeping ------------------------------------------------------------------------------------


def expire(db: Database, id_: str) -> None:
    """Time passes for one file: no upload of it can run any more."""
    db.connect().execute(
        "update sync_internal.files set busy_until = now() - interval '1 second' where id = %s",
        [id_],
    )


def test_what_hangs_on_a_deleted_parent_is_swept(db: Database, files: Files) -> None:
    kept, gone = files.ready(), files.ready()
    other = value(db.connect(), "select id::text from public.tasks where id <> %s limit 1", TASK_1)
    db.connect().execute("update public.task_files set task_id = %s where id = %s", [other, kept])
    db.connect().execute("delete from public.tasks where id = %s", [TASK_1])
    assert files.sweep() == {kept: "o", gone: None}
    # A sweep that ended in the middle is repeated.
    assert files.sweep() == {kept: "o", gone: None}
    assert files.swept() == 1
    assert files.sweep() == {}


def test_sweep_waits_for_an_upload_that_may_still_run(db: Database, files: Files) -> None:
    id_ = files.made()
    files.file(ALICE, id_, "upload")
    db.connect().execute("delete from public.task_files where id = %s", [id_])
    assert files.sweep() == {}
    expire(db, id_)
    assert files.sweep() == {id_: None}


def test_upload_that_began_after_the_sweep_looked_keeps_its_row(db: Database, files: Files) -> None:
    """A link is given out between the two halves of a sweep: what was done is not noted."""
    id_ = files.ready()
    found = value(files.gate.conn, "select sync.gateway_sweep()")
    assert found == [{"id": id_, "keep": "o"}]
    db.connect().execute(
        "update sync_internal.files set busy_until = now() + interval '1 hour' where id = %s", [id_]
    )
    files.gate.conn.execute("select sync.gateway_swept(%s)", [json.dumps(found)])
    expire(db, id_)
    assert files.sweep() == {id_: "o"}


def test_abandoned_upload_ends_and_is_heard_of(db: Database, files: Files) -> None:
    old, new, busy = files.made(), files.made(), files.made()
    files.file(ALICE, busy, "upload")
    db.connect().execute(
        "update sync_internal.files set created_at = now() - interval '8 days' "
        "where id = any (%s::uuid[])",
        [[old, busy]],
    )
    cursor = files.gate.cursor()
    assert files.sweep() == {old: None}
    assert files.record(ALICE, old) is None
    assert files.record(ALICE, new) is not None
    assert files.record(ALICE, busy) is not None
    changes = json.dumps(files.gate.changes(cursor))
    assert old in changes


def test_deleted_file_can_be_restored_until_the_trash_is_emptied(
    db: Database, files: Files
) -> None:
    id_ = files.ready()
    files.gate.applied(ALICE, {"type": "delete", "table": "taskFiles", "id": id_})
    files.swept()
    files.gate.applied(ALICE, {"type": "restore", "table": "taskFiles", "id": id_})
    files.gate.applied(ALICE, {"type": "delete", "table": "taskFiles", "id": id_})
    db.connect().execute("update public.task_files set deleted = now() - interval '31 days'")
    assert files.sweep() == {id_: None}
    restore = {"type": "restore", "table": "taskFiles", "id": id_}
    assert files.gate.write(ALICE, restore).status == 403


def test_file_that_is_restored_while_the_trash_is_emptied_stays(db: Database, files: Files) -> None:
    """The sweep has found it and waits for the restoring transaction."""
    conn, restoring, sweeping = db.connect(), db.connect(autocommit=False), db.connect()
    id_ = files.ready()
    conn.execute("update public.task_files set deleted = now() - interval '31 days'")
    restoring.execute("update public.task_files set deleted = null where id = %s", [id_])
    waiting = Background(lambda: sweeping.execute("select sync.gateway_sweep()").fetchone())
    wait_blocked(conn, pid(sweeping))
    restoring.commit()
    waiting.result()
    record = files.record(ALICE, id_)
    assert record is not None
    assert record["deleted"] is None
    assert files.sweep() == {id_: "o"}


def test_what_cannot_be_removed_waits_behind_the_others(db: Database, files: Files) -> None:
    first, second, busy = files.ready(), files.ready(), files.ready()
    conn = db.connect()
    conn.execute("delete from public.task_files")
    old = "update sync_internal.files set busy_until = now() - %s * interval '1 h' where id = %s"
    for hours, id_ in ((2, first), (1, second), (-1, busy)):
        conn.execute(old.encode(), [hours, id_])

    def named() -> str:
        (found,) = value(files.gate.conn, "select sync.gateway_sweep(1)")
        return str(found["id"])

    assert named() == first
    # Of one that is uploaded meanwhile nothing is noted.
    count = value(files.gate.conn, "select sync.gateway_not_swept(%s::uuid[])", [first, busy])
    assert count == 1
    assert named() == second
    assert files.sweep() == {first: None, second: None}


def test_deleted_file_is_downloaded_once_it_is_restored(files: Files) -> None:
    id_ = files.ready()
    files.gate.applied(ALICE, {"type": "delete", "table": "taskFiles", "id": id_})
    for user in (ALICE, BOB):
        refused = files.file(user, id_, "download")
        assert (refused["status"], refused["code"]) == (409, "deleted")
    # Who may not read it is not told that it was.
    assert files.file(CAROL, id_, "download")["code"] == "forbidden"
    files.gate.applied(ALICE, {"type": "restore", "table": "taskFiles", "id": id_})
    assert files.file(BOB, id_, "download")["object"] == "o"


@pytest.mark.parametrize("end", ["truncate public.task_files", "drop table public.task_files"])
def test_table_that_is_emptied_or_dropped_leaves_nothing(
    db: Database, files: Files, end: str
) -> None:
    id_ = files.ready()
    db.connect().execute(end.encode())
    assert files.sweep() == {id_: None}


def test_what_no_file_has_is_told(files: Files) -> None:
    known, unknown = files.made(), new_id()
    found = value(
        files.gate.conn, "select sync.gateway_unknown_files(%s::uuid[])", [known, unknown]
    )
    assert [str(id_) for id_ in found] == [unknown]


# --- making tables -------------------------------------------------------------------------------


def test_files_hang_on_a_table_with_another_id(db: Database, gate: Gate) -> None:
    conn = db.connect()
    live(conn, '"oddThings"', 'code text primary key, "n" integer')
    statement = "select sync.files(%s, %s, 'of', 'oddFiles')"
    conn.execute(statement, ['public."odd files"', 'public."oddThings"'])
    conn.execute("""insert into public."oddThings" (code) values ('a')""")
    id_ = new_id()
    gate.applied(ALICE, create("oddFiles", id_, of="a", name="x", size="1"))
    assert gate.get_records(ALICE, ("oddFiles", id_))["gone"] == []


def test_parents_have_to_be_live_and_names_whole(conn: psycopg.Connection) -> None:
    conn.execute("create table public.plain (id uuid primary key)")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("select sync.files('public.plain_files', 'public.plain', 'plain_id')")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("select sync.files('plain_files', 'public.tasks', 'task_id')")
    with pytest.raises(psycopg.errors.DuplicateTable):
        conn.execute("select sync.files('public.task_files', 'public.tasks', 'task_id')")


def test_who_owns_the_parent_makes_its_files(db: Database) -> None:
    conn = db.connect()
    conn.execute("create role keeper login")
    try:
        conn.execute("grant create, usage on schema public to keeper")
        conn.execute(
            "create table public.kept (id uuid primary key, version int not null default 1)"
        )
        conn.execute("alter table public.kept enable row level security")
        conn.execute("alter table public.kept owner to keeper")
        keeper = db.connect("keeper")
        conn.execute("grant usage on schema sync, sync_internal, auth to keeper")
        statement = "select sync.files('public.kept_files', 'public.kept', 'kept_id')"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect("rowcast_worker").execute(statement)
        for function in (
            "sync.enable(regclass,text,text,text,text[],boolean,text,text,text[],boolean,text[],jsonb,boolean,boolean)",
        ):
            conn.execute(f"grant execute on function {function} to keeper".encode())
        conn.execute("grant rowcast_owner to keeper")
        keeper.execute("select sync.enable('public.kept')")
        keeper.execute(statement.encode())
        owner = "select relowner::regrole::text from pg_class where relname = 'kept_files'"
        assert value(conn, owner) == "keeper"
    finally:
        conn.execute("drop owned by keeper cascade")
        conn.execute("drop role keeper")


def test_may_edit_asks_as_the_update_would(db: Database) -> None:
    conn = db.connect(autocommit=False)

    def may(user: str, table: str, id_: str | None) -> bool:
        conn.execute("select sync.act_as(%s)", [user])
        answer = value(conn, "select sync.may_edit(%s::regclass, %s)", table, id_)
        conn.execute("reset role")
        return bool(answer)

    assert may(ALICE, "public.tasks", TASK_1)
    assert not may(CAROL, "public.tasks", TASK_1)
    assert not may(ALICE, "public.tasks", new_id())
    assert not may(ALICE, "public.tasks", None)
    assert not may(BOB, "public.comments", ALICE_SAID)
    assert not may(ALICE, "sync_internal.files", new_id())


def test_doctor_misses_triggers_of_files(conn: psycopg.Connection) -> None:
    query = "select object, fix from sync.doctor() where code = 'file_trigger_missing'"
    assert conn.execute(query.encode()).fetchall() == []
    conn.execute("alter table public.task_files disable trigger zzz_rowcast_file_gone")
    conn.execute("drop trigger zzz_rowcast_file on public.note_files")
    found = {row[0].split()[0]: row[1] for row in conn.execute(query.encode()).fetchall()}
    assert set(found) == {"public.task_files", "public.note_files"}
    conn.execute(found["public.note_files"].encode())
    conn.execute("alter table public.task_files enable trigger zzz_rowcast_file_gone")
    assert conn.execute(query.encode()).fetchall() == []
