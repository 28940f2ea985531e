"""Mails from the write that causes them to an SMTP server."""

import email
import email.policy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from pydantic import ValidationError

from app import mails
from app.config import Settings
from app.main import create_app
from app.tokens import Signer
from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    CAROL,
    TASK_1,
    TASK_2,
    TASK_3,
    Gate,
    create,
    new_id,
    set_,
    value,
    wait_until,
)
from tests.worker.post import Post, listening
from tests.worker.process import Worker, working

SECRET = "a secret of at least thirty-two bytes"
PUBLIC = "https://app.example.com"


@pytest.fixture
def post() -> Iterator[Post]:
    with listening() as found:
        yield found


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    conn = db.connect()
    conn.execute("delete from jobs.schedules")
    conn.execute("select sync.configure('digest_seconds', 1)")
    conn.execute("update jobs.kinds set first_delay_seconds = 0")
    for user, name in ((ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")):
        conn.execute(
            "insert into accounts.users (id, email) values (%s, %s)"
            " on conflict (id) do update set email = excluded.email",
            (user, f"{name}@example.com"),
        )
    return conn


@pytest.fixture
def gate(db: Database) -> Gate:
    return Gate(db)


@contextmanager
def sending(db: Database, post: Post, login: str = "") -> Iterator[Worker]:
    with working(
        db,
        ROWCAST_SMTP_URL=f"smtp://{login}127.0.0.1:{post.port}",
        ROWCAST_MAIL_FROM="Rowcast <app@example.com>",
        ROWCAST_JWT_SECRET=SECRET,
        ROWCAST_PUBLIC_URL=PUBLIC,
    ) as worker:
        yield worker


def queued(conn: psycopg.Connection[Any]) -> list[Any]:
    return conn.execute("select kind, state, key from jobs.list()").fetchall()


def assign(gate: Gate, task: str, user: str | None, by: str = BOB) -> None:
    gate.applied(by, set_("tasks", task, "assigneeId", user))


def texts(mail: Any) -> tuple[str, str]:
    """The plain text and the HTML."""
    plain, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    return plain.get_content(), html.get_content()


def test_mails_of_accounts_are_sent_once_as_text_and_html(
    db: Database, conn: psycopg.Connection, post: Post
) -> None:
    for kind in ("sign_up", "reset", "invitation"):
        details = json.dumps(
            {"by": "Eve\r\nBcc: x@example.com", "to": "<b>Us</b> https://evil.example"}
        )
        conn.execute("select accounts.post(%s, %s, %s)", (kind, f"{kind}@example.com", details))
    post.answers = ["451 come back later"]
    with sending(db, post):
        wait_until(lambda: not queued(conn), "all are sent")
    found = {mail["To"]: mail for mail in post.mails}
    assert sorted(found) == ["invitation@example.com", "reset@example.com", "sign_up@example.com"]
    assert len(post.mails) == 3
    assert {mail["From"] for mail in post.mails} == {"Rowcast <app@example.com>"}
    assert all(mail["Bcc"] is None and mail["List-Unsubscribe"] is None for mail in post.mails)
    text, html = texts(found["sign_up@example.com"])
    (link,) = re.findall(r"https://\S+#token=\S+", text)
    assert link.startswith(PUBLIC + "/account/verify#token=")
    assert f'href="{link}"' in html
    text, html = texts(found["invitation@example.com"])
    assert "<b>" not in html
    assert "&lt;b&gt;Us" in html
    assert "https://evil" not in text + html
    assert value(conn, "select count(*) from accounts.mails where sent_at is null") == 0


def test_refused_address_is_held_and_others_are_sent(
    db: Database, conn: psycopg.Connection, post: Post
) -> None:
    conn.execute("select accounts.post('reset', 'a@example.com')")
    post.answers = ["550 no such user"]
    with sending(db, post):
        wait_until(lambda: [state for _, state, _ in queued(conn)] == ["held"], "it is held")
        conn.execute("select accounts.post('reset', 'b@example.com')")
        wait_until(lambda: post.mails, "the other is sent")
    assert [mail["To"] for mail in post.mails] == ["b@example.com"]


def test_ten_edits_make_one_digest_of_what_he_may_read(
    gate: Gate, conn: psycopg.Connection, post: Post
) -> None:
    for task in (TASK_1, TASK_2, TASK_3):
        assign(gate, task, None)
        for _ in range(3):
            assign(gate, task, ALICE)
            assign(gate, task, None)
        assign(gate, task, ALICE)
    # Her own doing is no news, and who may not read the task hears nothing of it.
    assign(gate, TASK_3, CAROL, by=ALICE)
    gate.applied(
        BOB, create("comments", new_id(), taskId=TASK_1, content="Look, @alice and @Carol: done?")
    )
    assert sorted(queued(conn)) == [
        ("digest", "queued", ALICE),
        ("digest", "queued", CAROL),
    ]
    conn.execute("delete from public.tasks where id = %s", (TASK_2,))
    with sending(gate.db, post):
        wait_until(lambda: not queued(conn), "everything is done")
    (mail,) = post.mails
    assert mail["To"] == "alice@example.com"
    assert mail["Subject"] == "3 things that concern you"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    text, html = texts(mail)
    assert text.count("Bob has assigned a task to you") == 2
    assert text.count("Bob mentions you in a comment") == 1
    assert "Write the announcement" in html
    assert value(conn, "select count(*) from accounts.notices") == 0


async def test_unsubscribe_link_sets_the_record_and_ends_the_mails(
    gate: Gate, conn: psycopg.Connection, post: Post
) -> None:
    assign(gate, TASK_1, None)
    assign(gate, TASK_1, ALICE)
    with sending(gate.db, post):
        wait_until(lambda: post.mails, "it is sent")
        address = urlsplit(post.mails[0]["List-Unsubscribe"].strip("<>"))
        assert parse_qs(address.query)["topics"] == ["assigned"]
        settings = Settings(
            database_url=gate.db.dsn("rowcast_gateway"),
            accounts=True,
            jwt_secret=SECRET,
            public_url=PUBLIC,
        )
        app = create_app(settings)
        where = f"{address.path}?{address.query}"
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://gateway"
            ) as http,
        ):
            for forged in (where[:-1] + "_", where.replace("assigned", "mentioned"), address.path):
                assert (await http.post(forged)).status_code == 403
            asked = await http.get(where)
            assert "<form" in asked.text
            assert "form-action 'self'" in asked.headers["Content-Security-Policy"]
            settings_of = "select assigned, mentioned from public.notification_settings"
            assert conn.execute(settings_of.encode()).fetchall() == []
            for _ in range(2):
                done = await http.post(where, data={"List-Unsubscribe": "One-Click"})
                assert done.status_code == 200
        record = gate.query(ALICE, "notificationSettings")["recordMap"]["notificationSettings"]
        assert record[ALICE]["assigned"] is False
        assert record[ALICE]["mentioned"] is True
        assign(gate, TASK_1, None)
        assign(gate, TASK_1, ALICE)
        wait_until(lambda: not queued(conn), "it is done")
    assert len(post.mails) == 1


UNWANTED = {
    "he lost access": "delete from public.workspace_members where user_id = %(user)s",
    "he unsubscribed": "insert into public.notification_settings (id, assigned) values"
    " (%(user)s, false)",
    "it was deleted": "delete from public.tasks where id = %(task)s",
    "he is disabled": "select sync.disable_user(%(user)s::text)",
    "he is no more": "delete from accounts.users where id = %(user)s",
    "he has another address": "update accounts.users set email = 'new@example.com'"
    " where id = %(user)s",
}


@pytest.mark.parametrize("what", UNWANTED)
def test_digest_is_what_he_may_read_when_it_is_sent(
    gate: Gate, conn: psycopg.Connection, what: str
) -> None:
    """It waited: for a server that was away, say."""
    assign(gate, TASK_1, None)
    assign(gate, TASK_1, ALICE)
    worker = gate.db.connect("rowcast_worker")
    assert value(worker, "select accounts.worker_digest(%s)", ALICE) == 1
    id_, title = conn.execute(
        "select id, details #>> '{items,0,title}' from accounts.mails"
    ).fetchone() or (None, None)
    sent = value(worker, "select accounts.worker_mail(%s)", id_)
    assert sent["details"]["items"][0]["title"] == title
    assert value(worker, "select current_user::text") == "rowcast_worker"
    conn.execute(UNWANTED[what].encode(), {"user": ALICE, "task": TASK_1})
    assert value(worker, "select accounts.worker_mail(%s)", id_) is None


def test_disabled_user_gets_no_digest(gate: Gate, conn: psycopg.Connection) -> None:
    assign(gate, TASK_1, None)
    assign(gate, TASK_1, ALICE)
    conn.execute("select sync.disable_user(%s)", (ALICE,))
    worker = gate.db.connect("rowcast_worker")
    assert value(worker, "select accounts.worker_digest(%s)", ALICE) == 0
    assert value(conn, "select count(*) from accounts.mails") == 0
    assert value(conn, "select count(*) from accounts.notices") == 0


def test_more_than_a_mail_holds_is_told_by_the_next(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(
        "select accounts.notify(%s, 'assigned', 'tasks', %s) from generate_series(1, 200)",
        (ALICE, TASK_2),
    )
    conn.execute(
        "insert into accounts.notices (user_id, topic, table_name, record_id, details)"
        " select %s, 'assigned', 'tasks', gen_random_uuid(), '{}' from generate_series(1, 200)",
        (ALICE,),
    )
    conn.execute(
        "update accounts.notices set created_at = now() + '1 s' where record_id = %s", (TASK_2,)
    )
    conn.execute("delete from jobs.pgqueuer")
    worker = gate.db.connect("rowcast_worker")
    assert value(worker, "select accounts.worker_digest(%s)", ALICE) == 0
    assert queued(conn) == [("digest", "queued", ALICE)]
    assert value(worker, "select accounts.worker_digest(%s)", ALICE) == 1


def test_mails_somebody_waits_for_go_first(conn: psycopg.Connection) -> None:
    for kind in ("digest", "invitation", "reset"):
        conn.execute("select accounts.post(%s, 'a@example.com')", (kind,))
    first = (
        "select m.kind from jobs.pgqueuer j join accounts.mails m on 'mail:' || m.id = j.dedupe_key"
        " order by j.priority desc, j.id"
    )
    assert conn.execute(first.encode()).fetchall() == [("reset",), ("digest",), ("invitation",)]


def made(details: dict[str, Any], to: str = "a@example.com") -> bytes:
    """A digest as it goes over the line."""
    item = {"topic": "assigned", "by": "Bob", "title": "It", "path": "/tasks"} | details
    mail = {
        "id": TASK_1,
        "kind": "digest",
        "recipient": to,
        "details": {"user": ALICE, "items": [item]},
        "createdAt": "2026-01-01T00:00:00.000Z",
    }
    settings = Settings(jwt_secret=SECRET, public_url=PUBLIC)
    return mails.message(mail, PUBLIC, Signer(settings), "app@example.com").as_bytes()


def test_unsubscribe_header_is_what_mail_programs_look_for() -> None:
    """Not folded, and not encoded as words."""
    line = next(one for one in made({}).split(b"\r\n") if one.startswith(b"List-Unsubscribe: "))
    assert re.fullmatch(rb"List-Unsubscribe: <https://app.example.com/[!-~]+>", line)
    assert len(line) > 78


def test_names_neither_reorder_nor_inject() -> None:
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    raw = made({"by": "Eve\r\nBcc: x@example.com\u202e", "title": f"{hebrew} {'x' * 5000}"})
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["Bcc"] is None
    assert len(mail["Subject"]) <= 150
    text, _ = texts(mail)
    assert f"\u2068{hebrew}" in text
    assert "\u202e" not in text
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))


def test_addresses_of_other_scripts() -> None:
    raw = made({}, "anna@b\u00fccher.example")
    assert b"To: anna@xn--bcher-kva.example\r\n" in raw
    for bad in ("a@" + "x" * 70 + ".example", "a@b..example"):
        with pytest.raises(ValueError, match="idna"):
            made({}, bad)


def test_password_is_not_said_in_the_open(
    db: Database, conn: psycopg.Connection, post: Post
) -> None:
    """Somebody on the way may hide that the server has TLS."""
    conn.execute("select accounts.post('reset', 'a@example.com')")
    with sending(db, post, "user:secret@"):
        wait_until(lambda: value(conn, "select max(error) from jobs.list()"), "it has failed")
    assert "STARTTLS" in value(conn, "select error from jobs.list()")
    assert post.passwords == []
    assert post.mails == []


def test_without_a_server_mails_wait(db: Database, conn: psycopg.Connection) -> None:
    conn.execute("select accounts.post('reset', 'a@example.com')")
    conn.execute("select jobs.enqueue('prune')")
    with working(db):
        wait_until(lambda: [kind for kind, _, _ in queued(conn)] == ["mail"], "it waits alone")
    assert json.loads(json.dumps(value(conn, "select accounts.mails_due()")))[0]["kind"] == "reset"


@pytest.mark.parametrize(
    "given",
    [
        {"smtp_url": "http://x", "mail_from": "a@b.example"},
        {"smtp_url": "smtp://host:99999", "mail_from": "a@b.example"},
        {"smtp_url": "smtp://host"},
        {"smtp_url": "smtp://host", "mail_from": "a@b.example, c@d.example"},
        {"smtp_url": "smtp://host", "mail_from": "a@b.example\nBcc: c@d.example"},
    ],
)
def test_unusable_settings_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(jwt_secret=SECRET, public_url=PUBLIC, **given)  # type: ignore[arg-type]
