"""Exports and imports by a worker as a process: what is in them, and what becomes of them."""

import hashlib
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    CAROLS,
    LAUNCH,
    TASK_1,
    call,
    create,
    live,
    new_id,
    set_,
    value,
    wait_until,
)
from tests.worker.test_worker import KILL
from tests.worker.transfers import Scene, count, packed, records

TABLES = ("workspaces", "boards", "tasks", "comments", "task_files", "notebooks", "notes")
COMPARED = ("workspaces", "boards", "tasks", "comments", "notebooks", "notes")
LEFT_OUT = {
    "id", "version", "updatedAt", "createdAt", "createdBy", "authorId", "ownerId", "memberIds",
    "sharedWith",
}  # fmt: skip


@pytest.fixture
def scene(db: Database, tmp_path: Path) -> Scene:
    return Scene(db, tmp_path)


def test_export_holds_what_its_user_may_read_and_nothing_else(scene: Scene) -> None:
    scene.conn.execute(
        "revoke select on public.tasks from authenticated;"
        " grant select (id, board_id, title, deleted, version) on public.tasks to authenticated"
    )
    scene.conn.execute("select sync.refresh()")
    kept = scene.file(ALICE, "taskFiles", b"kept" * 1000, taskId=TASK_1)
    run = scene.export(ALICE)
    found = scene.run(run)
    assert (found["state"], found["progress"]) == ("done", 1)
    archive = scene.archive(run)
    assert archive.testzip() is None
    for table in COMPARED:
        readable = scene.gate.query(ALICE, table, limit=1000, where={})["ids"]
        exported = {record["id"] for record in records(archive, table)}
        assert exported >= set(readable)
        assert exported
    everywhere = b"".join(archive.read(name) for name in archive.namelist())
    assert CAROLS.encode() not in everywhere
    assert {key for record in records(archive, "tasks") for key in record} == {
        "id", "boardId", "title", "deleted", "version",
    }  # fmt: skip
    assert archive.read(f"files/taskFiles/{kept}/{kept[-4:]}.bin") == b"kept" * 1000
    assert not any("job" in name for name in archive.namelist())
    # His own, to be downloaded by the usual way, and nobody else's.
    file = {key: found["result"]["file"][key] for key in ("table", "id")}
    assert scene.gate.get_records(ALICE, ("jobRunFiles", file["id"]))["recordMap"]
    assert not scene.gate.get_records(BOB, ("jobRunFiles", file["id"]))["recordMap"]
    assert scene.gate.write(ALICE, set_("jobRunFiles", file["id"], "name", "x")).status == 403


def test_round_trip_of_the_example_is_equal_under_new_ids(scene: Scene) -> None:
    for number in range(3):
        scene.file(ALICE, "taskFiles", bytes([number]) * 5000, taskId=TASK_1)
    trash = new_id()
    scene.gate.applied(ALICE, create("tasks", trash, boardId=LAUNCH, title="in the trash"))
    scene.gate.applied(ALICE, {"type": "delete", "table": "tasks", "id": trash})
    first = scene.export(ALICE)
    archive = scene.archive(first)
    # Somebody who reads nothing of it brings it in.
    dave = new_id()
    found = scene.imported(dave, scene.bytes_of(scene.run(first)["result"]["file"]["id"]))
    assert found["state"] == "done", found
    assert found["result"]["files"] == 3
    assert {"workspaceMembers", "profiles"} <= found["result"]["skipped"].keys()
    again = scene.archive(scene.export(dave))
    assert_equal(archive, again)
    (root, *_) = (one["id"] for one in found["result"]["roots"] if one["table"] == "workspaces")
    seen = scene.gate.get_records(dave, ("workspaces", root))["recordMap"]["workspaces"][root]
    assert (seen["memberIds"], seen["ownerId"]) == ([], dave)
    # The file that was brought is gone.
    assert count(scene.conn, "jobs.run_files") == 2


def assert_equal(archive: zipfile.ZipFile, again: zipfile.ZipFile) -> None:
    """The same but for ids, references held by what they lead to, and what is the server's."""
    for table in COMPARED:
        old, new = records(archive, table), records(again, table)
        assert not {record["id"] for record in old} & {record["id"] for record in new}
        assert plain(old) == plain(new)
    for child, key, parent, name in (
        ("comments", "taskId", "tasks", "title"),
        ("tasks", "boardId", "boards", "name"),
        ("boards", "workspaceId", "workspaces", "name"),
        ("notes", "notebookId", "notebooks", "name"),
        ("taskFiles", "taskId", "tasks", "title"),
    ):
        hung = []
        for one in (archive, again):
            names = {record["id"]: record[name] for record in records(one, parent)}
            rows = records(one, child)
            hung.append(sorted((names[row[key]], *plain([row])) for row in rows))
        assert hung[0] == hung[1]
    assert held(archive) == held(again)


def held(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """The bytes of files by their names."""
    return sorted(
        (name.rpartition("/")[2], hashlib.sha256(archive.read(name)).hexdigest())
        for name in archive.namelist()
        if name.startswith("files/")
    )


def plain(rows: list[dict[str, Any]]) -> list[str]:
    """What is not of the server, without references."""
    return sorted(
        json.dumps({k: v for k, v in row.items() if k not in LEFT_OUT and not k.endswith("Id")})
        for row in rows
    )


class Gate:
    """Keeps a worker in the middle: it waits for a table."""

    def __init__(
        self, scene: Scene, table: str = "public.comments", mode: str = "access exclusive"
    ) -> None:
        self.conn = scene.db.connect(autocommit=False)
        self.conn.execute(f"lock table {table} in {mode} mode".encode())
        self._watch = scene.conn

    def wait(self) -> None:
        wait_until(
            lambda: value(
                self._watch,
                "select count(*) from pg_stat_activity where usename = 'rowcast_worker'"
                " and datname = current_database() and wait_event_type = 'Lock'",
            ),
            "the worker waits",
        )

    def open(self) -> None:
        self.conn.rollback()


def address(scene: Scene, user: str) -> None:
    scene.conn.execute(
        "insert into accounts.users (id, email) values (%s, 'a@example.com')"
        " on conflict (id) do update set email = excluded.email",
        (user,),
    )


def mails(scene: Scene) -> int:
    number: int = value(scene.conn, "select count(*) from accounts.mails where kind = 'export'")
    return number


def test_export_of_a_killed_worker_is_made_again_and_told_once(scene: Scene) -> None:
    """Killed while it reads, then when the file is there and nothing says so yet."""
    address(scene, ALICE)
    run = scene.call(ALICE, "startExport")
    assert scene.call(ALICE, "startExport") == run
    gate = Gate(scene)
    with scene.worker() as worker:
        gate.wait()
        worker.kill()
    gate.open()
    gate = Gate(scene)
    with scene.worker() as worker:
        wait_until(lambda: scene.run(run)["state"] == "running", "another has it")
        gate.wait()
        file = value(scene.conn, "select id::text from jobs.run_files")
        row = Gate(scene, "accounts.users")
        gate.open()
        wait_until(lambda: list((scene.folder / file).glob("*")), "the file is written")
        row.wait()
        worker.kill()
    scene.conn.execute(KILL)
    row.open()
    assert len(list((scene.folder / file).glob("*"))) == 1
    assert value(scene.conn, "select state from jobs.run_files") == "pending"
    with scene.worker():
        scene.ended(run)
    assert scene.archive(run).testzip() is None
    assert mails(scene) == 1
    assert len(list((scene.folder / file).glob("*"))) == 2
    scene.conn.execute(
        "insert into jobs.schedules (name, kind, every) values ('s', 'sweep', '1 h')"
    )
    with scene.worker():
        wait_until(lambda: len(list((scene.folder / file).glob("*"))) == 1, "the other is swept")
    assert scene.archive(run).testzip() is None
    # The next one takes the place of this.
    scene.export(ALICE)
    assert count(scene.conn, "jobs.run_files") == 1
    assert mails(scene) == 2


def test_what_is_lost_while_it_is_exported_is_not_handed_over(scene: Scene) -> None:
    gate = Gate(scene)
    run = scene.call(BOB, "startExport")
    with scene.worker():
        gate.wait()
        scene.conn.execute(
            "update public.workspaces set member_ids = '[]' where owner_id = %s", (ALICE,)
        )
        # Deleted for good is not lost: it was his to read when it was read.
        scene.conn.execute("delete from public.notebooks where owner_id = %s", (BOB,))
        gate.open()
        scene.ended(run)
    archive = scene.archive(run)
    assert records(archive, "tasks") == []
    assert b"LAUNCH" not in archive.read("manifest.json")


def test_disabled_user_gets_no_export(scene: Scene) -> None:
    address(scene, ALICE)
    gate = Gate(scene)
    run = scene.call(ALICE, "startExport")
    with scene.worker():
        gate.wait()
        scene.conn.execute("select sync.disable_user(%s)", (ALICE,))
        gate.open()
        scene.ended(run, "held")
    assert mails(scene) == 0
    assert value(scene.conn, "select state from jobs.run_files") == "pending"


def test_file_that_vanished_is_named_and_the_rest_is_there(scene: Scene) -> None:
    gone = scene.file(ALICE, "taskFiles", b"gone", taskId=TASK_1)
    kept = scene.file(ALICE, "taskFiles", b"kept", taskId=TASK_1)
    (scene.folder / gone / "object").unlink()
    run = scene.export(ALICE)
    result = scene.run(run)["result"]
    assert (result["files"], result["missing"]) == (1, 1)
    archive = scene.archive(run)
    assert json.loads(archive.read("manifest.json"))["missingFiles"] == [f"taskFiles:{gone}"]
    dave = new_id()
    found = scene.imported(dave, scene.bytes_of(result["file"]["id"]))
    assert found["result"]["files"] == 1
    assert found["result"]["skipped"]["taskFiles"] == 1
    assert kept


def test_files_without_a_name_that_may_be_read_are_exported_as_records(scene: Scene) -> None:
    file = scene.file(ALICE, "taskFiles", b"kept", taskId=TASK_1)
    scene.conn.execute(
        "revoke select on public.task_files from authenticated; grant select"
        " (id, task_id, state, size, deleted, version) on public.task_files to authenticated"
    )
    scene.conn.execute("select sync.refresh()")
    run = scene.export(ALICE)
    assert scene.run(run)["state"] == "done"
    archive = scene.archive(run)
    assert [record["id"] for record in records(archive, "taskFiles")] == [file]
    assert not held(archive)


def test_export_that_is_too_large_says_so(scene: Scene) -> None:
    scene.conn.execute("select sync.configure('max_export_bytes', 1000)")
    run = scene.call(ALICE, "startExport")
    with scene.worker():
        found = scene.ended(run)
    assert found["result"]["error"]["code"] == "too_large"
    assert count(scene.conn, "jobs.run_files") == count(scene.conn, "jobs.pgqueuer") == 0


def test_import_of_a_killed_worker_goes_on_and_doubles_nothing(scene: Scene) -> None:
    first = scene.export(ALICE)
    content = scene.bytes_of(scene.run(first)["result"]["file"]["id"])
    before = {table: count(scene.conn, f"public.{table}") for table in TABLES}
    dave = new_id()
    run = scene.import_(dave, content)
    gate = Gate(scene, "public.notes", "share")
    with scene.worker() as worker:
        gate.wait()
        worker.kill()
    scene.conn.execute(KILL)
    # Half of it is there, and in no list.
    assert count(scene.conn, "public.boards") > before["boards"]
    assert scene.gate.query(dave, "workspaces")["ids"] == []
    gate.open()
    with scene.worker():
        assert scene.ended(run)["state"] == "done"
    made = scene.run(run)["result"]["records"]
    after = {table: count(scene.conn, f"public.{table}") for table in TABLES}
    assert sum(after.values()) - sum(before.values()) == made
    assert scene.gate.query(dave, "workspaces")["ids"]


def test_import_that_a_stopped_worker_left_is_not_judged_by_its_own_files(scene: Scene) -> None:
    """An attempt that was given back does not count, but what it has written takes room already."""
    content = b"x" * 5000
    workspace, board, task, file = (new_id() for _ in range(4))
    archive = packed(
        {
            "workspaces": [{"id": workspace, "name": "W"}],
            "boards": [{"id": board, "workspaceId": workspace, "name": "B"}],
            "tasks": [{"id": task, "boardId": board, "title": "T"}],
            "comments": [{"id": new_id(), "taskId": task, "content": "C"}],
            "taskFiles": [
                {"id": file, "taskId": task, "name": "n", "size": "5000", "state": "ready"}
            ],
        },
        {f"files/taskFiles/{file}/n": content},
    )
    scene.conn.execute("select sync.configure('file_quota_bytes', %s)", (len(archive) + 9000,))
    scene.conn.execute("select sync.configure('max_operations', 1)")
    dave = new_id()
    run = scene.import_(dave, archive)
    gate = Gate(scene, "public.comments", "share")
    with scene.worker() as worker:
        gate.wait()
        hidden = scene.db.connect(autocommit=False)
        hidden.execute(
            "select from public.workspaces where owner_id = %s for no key update", (dave,)
        )
        gate.open()
        wait_until(
            lambda: value(
                scene.conn, "select count(*) from public.task_files where state = 'ready'"
            ),
            "the file is there",
        )
        worker.stop()
    assert scene.run(run)["state"] == "queued"
    hidden.rollback()
    with scene.worker():
        found = scene.ended(run)
    assert (found["state"], found["result"]["files"]) == ("done", 1), found
    # The next one has no room, as is seen before anything is made of it.
    before = count(scene.conn, "public.workspaces")
    scene.conn.execute("select sync.configure('file_quota_bytes', %s)", (2 * len(archive) + 9000,))
    found = scene.imported(dave, archive)
    assert found["result"] == {
        "error": {"code": "quota", "detail": "Its files would take more room than you have"}
    }
    assert count(scene.conn, "public.workspaces") == before


def test_what_is_left_out_is_lists_of_names(scene: Scene) -> None:
    scene.conn.execute("select sync.expose('jobs.start_import(uuid, jsonb)')")
    run = scene.upload(ALICE, packed({}))
    wrong: list[Any] = [[], 1, {"workspaces": 1}, {"workspaces": {"a": 1}}, {"workspaces": [1]}]
    for omit in wrong:
        refused = scene.gate.write(ALICE, call("startImport", run=run, omit=omit))
        assert (refused.status, refused.code) == (400, "wrong_type"), omit
    right = {"workspaces": ["memberIds"], "boards": []}
    assert scene.call(ALICE, "startImport", run=run, omit=right) == run


def test_hostile_archives_fail_with_a_reason_and_leave_nothing(scene: Scene) -> None:
    workspace, board, task = new_id(), new_id(), new_id()
    workspaces = [{"id": workspace, "name": "W"}]
    boards = [{"id": board, "workspaceId": workspace, "name": "B"}]
    good = {"workspaces": workspaces, "boards": boards}
    bomb = packed({"workspaces": b"{" + b" " * 50_000_000})
    cases = {
        "no zip": (b"PK\x03\x04 and so on", "bad_archive"),
        "empty": (b"", "bad_archive"),
        "no manifest": (renamed(packed(good), b"manifest.json", b"manifesto.jso"), "bad_archive"),
        "other version": (packed(good, version=7), "bad_version"),
        "traversal": (packed(good, {"../../etc/passwd": b"x"}), "bad_archive"),
        "traversal of a file": (
            packed(good, {f"files/taskFiles/{task}/..": b"x"}), "bad_archive",
        ),
        "unknown table": (packed({**good, "secrets": []}), "unknown_table"),
        "unknown key": (
            packed({"workspaces": [{"id": workspace, "name": "W", "secret": 1}]}), "unknown_key",
        ),
        "no object": (packed({"workspaces": "[1]"}), "bad_record"),
        "no JSON": (packed({"workspaces": "{'a'"}), "bad_record"),
        "too deep": (packed({"workspaces": "[" * 100_000}), "bad_record"),
        "no id": (packed({"workspaces": [{"name": "W"}]}), "bad_record"),
        "twice": (packed({"workspaces": workspaces * 2}), "bad_record"),
        "huge line": (packed({"workspaces": b'{"id":"' + b"x" * 3_000_000}), "bad_record"),
        "bomb": (bomb, "bad_record"),
        "wrong type": (
            packed({**good, "tasks": [{"id": task, "boardId": board, "title": {"a": 1}}]}),
            "wrong_type",
        ),
        "nul": (
            packed({**good, "tasks": [{"id": task, "boardId": board, "title": "a\0b"}]}),
            "bad_record",
        ),
        "broken rule": (
            packed({**good, "tasks": [{"id": task, "boardId": board, "title": "", "status": "?"}]}),
            None,
        ),
        "damaged": (damaged(packed(good)), "bad_archive"),
        "lying size": (lying(packed(good)), "bad_archive"),
        "large by its word": (lying(packed(good), 1 << 31), "too_large"),
        "file of another size": (
            packed(
                {
                    **good,
                    "tasks": [{"id": task, "boardId": board, "title": "T"}],
                    "taskFiles": [
                        {"id": task, "taskId": task, "name": "n", "size": "9", "state": "ready"}
                    ],
                },
                {f"files/taskFiles/{task}/n": b"x"},
            ),
            "mismatch",
        ),
    }  # fmt: skip
    scene.conn.execute("select sync.configure('max_export_bytes', 1000000000)")
    dave = new_id()
    runs = {}
    for name, (content, _) in cases.items():
        run = scene.call(dave, "beginImport")
        scene.file(dave, "jobRunFiles", content, runId=run)
        scene.call(dave, "importWorkspaces", run=run)
        runs[name] = run
    with scene.worker() as worker:
        for run in runs.values():
            scene.ended(run)
        peak = worker.peak_mb()
    found = {name: scene.run(run) for name, run in runs.items()}
    for name, (_, code) in cases.items():
        assert found[name]["state"] == "failed", (name, found[name])
        error = found[name]["result"]["error"]
        assert code in (None, error["code"]), (name, error)
        assert error["detail"], name
        assert not found[name]["result"].get("left"), name
    assert peak < 250
    for table in ("workspaces", "boards", "tasks"):
        assert scene.gate.query(dave, table)["ids"] == []
    assert count(scene.conn, "jobs.run_files") == count(scene.conn, "jobs.pgqueuer") == 0


def test_references_to_oneself_in_circles_and_to_what_is_missing(scene: Scene) -> None:
    """A tree whose children come first, two tables that name each other, one whose target is not
    in the file, and a refusal in the last of them.
    """
    live(
        scene.conn,
        "nodes",
        "id uuid primary key, name text, gone timestamptz,"
        " parent uuid references public.nodes on delete cascade",
        ", p_soft_delete => 'gone'",
    )
    live(
        scene.conn,
        "leaves",
        "id text primary key, node uuid not null references public.nodes on delete cascade,"
        " size integer check (size < 10), gone timestamptz",
        ", p_soft_delete => 'gone'",
    )
    scene.conn.execute(
        "alter table public.nodes add leaf text references public.leaves on delete set null;"
        " select sync.refresh(); select sync.enable('public.nodes', p_soft_delete => 'gone')"
    )
    root, child, other = new_id(), new_id(), new_id()
    nodes = [
        {"id": child, "name": "child", "parent": root, "leaf": "l1"},
        {"id": root, "name": "root", "parent": None, "leaf": None},
        {"id": other, "name": "other", "parent": new_id(), "leaf": "nowhere"},
    ]
    leaves = [
        {"id": "l1", "node": root, "size": 1},
        {"id": "l2", "node": new_id(), "size": 1},
        {"id": "l3", "node": child, "size": 2, "gone": "2026-01-01T00:00:00Z"},
    ]
    dave = new_id()
    found = scene.imported(dave, packed({"nodes": nodes, "leaves": leaves}))
    assert found["state"] == "done", found
    assert found["result"]["skipped"] == {"leaves": 1}
    asked = scene.conn.execute(
        "select n.name, p.name, l.size, n.gone is null from public.nodes n"
        " left join public.nodes p on p.id = n.parent left join public.leaves l on l.id = n.leaf"
        " order by 1"
    )
    assert asked.fetchall() == [
        ("child", "root", 1, True),
        ("other", None, None, True),
        ("root", None, None, True),
    ]
    gone = "select array_agg(gone is not null order by size) from public.leaves"
    assert value(scene.conn, gone) == [False, True]
    leaves[0]["size"] = 11
    found = scene.imported(dave, packed({"nodes": nodes, "leaves": leaves}))
    assert (found["state"], found["result"]["left"]) == ("failed", {})
    assert len(scene.gate.query(dave, "nodes")["ids"]) == 3


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    return content.replace(old, new)


def damaged(content: bytes) -> bytes:
    """A bit of what is packed is another."""
    made = bytearray(content)
    made[60] ^= 0x10
    return bytes(made)


def lying(content: bytes, size: int = 5) -> bytes:
    """The directory says another size of its first entry than there is."""
    made = bytearray(content)
    at = content.index(b"PK\x01\x02")
    made[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(made)


def test_runs_and_their_files_are_their_users_alone(scene: Scene) -> None:
    run = scene.call(ALICE, "beginImport")
    file = create("jobRunFiles", new_id(), runId=run, name="a.zip", size=3)
    assert scene.gate.write(BOB, file).status == 403
    assert scene.gate.write(BOB, call("importWorkspaces", run=run)).status == 403
    assert scene.gate.write(ALICE, call("importWorkspaces", run=run)).code == "not_ready"
    assert scene.gate.write(None, call("startExport")).status == 400
    scene.file(ALICE, "jobRunFiles", b"abc", runId=run)
    for _ in range(2):
        assert scene.call(ALICE, "importWorkspaces", run=run) == run
    assert scene.gate.write(ALICE, file).status == 403
    export = scene.call(ALICE, "startExport")
    file = create("jobRunFiles", new_id(), runId=export, name="a.zip", size=3)
    assert scene.gate.write(ALICE, file).status == 403
    waiting = [scene.call(BOB, "beginImport") for _ in range(8)]
    left = scene.gate.query(BOB, "jobRuns")["ids"]
    assert set(left) == set(waiting[-5:])
    scene.conn.execute("update jobs.runs set created_at = now() - interval '8 days'")
    scene.conn.execute("select jobs.prune()")
    assert scene.gate.query(BOB, "jobRuns")["ids"] == []


@pytest.mark.faults
def test_memory_does_not_follow_the_size(scene: Scene) -> None:
    """Full size: ROWCAST_TRANSFER_RECORDS=10000, and a hundredth as many files of a megabyte."""
    size = int(os.environ.get("ROWCAST_TRANSFER_RECORDS", "1500"))
    scene.conn.execute(
        "insert into public.tasks (board_id, title, description, metadata, created_by)"
        " select %s, 'task ' || n, repeat(md5(n::text), 30), jsonb_build_object('n', n), %s"
        " from generate_series(1, %s) n",
        (LAUNCH, ALICE, size),
    )
    for number in range(size // 100):
        scene.file(ALICE, "taskFiles", number.to_bytes(4, "big") * 262144, taskId=TASK_1)
    dave = new_id()
    with scene.worker() as worker:
        wait_until(lambda: "worker ready" in worker.log, "it works")
        idle, started = worker.peak_mb(), time.monotonic()
        run = scene.call(ALICE, "startExport")
        scene.ended(run)
        exported, peak = time.monotonic() - started, worker.peak_mb()
        archive, started = scene.archive(run), time.monotonic()
        brought = scene.import_(dave, scene.bytes_of(scene.run(run)["result"]["file"]["id"]))
        found = scene.ended(brought)
        imported = time.monotonic() - started
        print(
            f"{size} records: idle {idle} MB; export {exported:.1f} s, {peak} MB;"
            f" import {imported:.1f} s, {worker.peak_mb()} MB"
        )
        assert found["state"] == "done", found
        assert worker.peak_mb() < idle + 80
    assert_equal(archive, scene.archive(scene.export(dave)))
