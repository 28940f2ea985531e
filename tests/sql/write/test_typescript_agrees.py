"""Random transactions end alike in the engine and in the web client's own copy of the rules.

Node makes the transactions and judges the answers (`client/test/random-operations.ts`); this side
carries them out. `ROWCAST_RANDOM_OPERATIONS` says how many sequences, each a create and two
transactions after it; `ROWCAST_RANDOM_SEED` repeats a run.
"""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import Database, Server
from tests.sql.engine import ALICE, refusal_of, value

CLIENT = Path(__file__).parents[3] / "client"
SEQUENCES = int(os.environ.get("ROWCAST_RANDOM_OPERATIONS", "2000"))
SEED = int(os.environ.get("ROWCAST_RANDOM_SEED", secrets.randbelow(2**31)))
BATCH = 50  # what `max_transactions` allows in a request
NOW = "2026-01-31T23:59:59.123456Z"

# Small enough to be passed now and then. Bytes the server alone counts.
LIMITS = {
    "max_operations": 25,
    "max_list_items": 6,
    "max_depth": 4,
    "max_path": 5,
}

TABLES = """
create type mood as enum ('calm', 'busy', 'wild');
create table things (
    id uuid not null constraint things_pkey primary key,
    title text not null,
    status text not null default 'todo' constraint things_status check (status in ('todo', 'done')),
    label varchar(10),
    note text,
    count integer,
    score integer not null default 7,
    big bigint not null default 0,
    exact numeric,
    ratio double precision,
    flag boolean not null default false,
    day date,
    at timestamptz,
    plain timestamp,
    link uuid,
    raw bytea,
    mood mood,
    data jsonb not null default '{"a": {"b": [1, 2]}}',
    extra jsonb,
    list jsonb not null default '[]',
    names text[],
    counts integer[],
    bigs bigint[],
    exacts numeric[],
    ratios double precision[],
    flags boolean[],
    links uuid[],
    days date[],
    moods mood[],
    frozen text default 'ice',
    later text,
    short varchar(3),
    stamp text,
    created_by uuid not null default auth.uid(),
    created_at timestamptz not null default sync.now(),
    updated_at timestamptz not null default sync.now(),
    deleted timestamptz,
    version integer not null default 1
);
-- Deleted for good, with an id of text.
create table marks (
    id text not null constraint marks_pkey primary key,
    title text,
    n integer,
    tags text[] not null,
    data jsonb not null,
    version integer not null default 1
);
-- With a boolean for deletion, and nothing that is touched.
create table flags (
    id uuid not null constraint flags_pkey primary key,
    title text,
    n bigint,
    gone boolean not null default false,
    data jsonb,
    version integer not null default 1
);
alter table things enable row level security;
alter table marks enable row level security;
alter table flags enable row level security;
create policy everybody on things using (true) with check (true);
create policy everybody on marks using (true) with check (true);
create policy everybody on flags using (true) with check (true);
grant select, insert, update, delete on things, marks, flags to authenticated;
revoke insert, update on things from authenticated;
do $$
begin
    execute (
        select format(
            'grant insert (%s), update (%s) on things to authenticated',
            string_agg(attname, ', ') filter (where attname <> 'later'),
            string_agg(attname, ', ') filter (where attname not in ('id', 'frozen'))
        )
        from pg_attribute
        where attrelid = 'things'::regclass and attnum > 0
    );
end
$$;
select sync.enable(
    'things', p_topics => '{link,mood,count,flag,status}', p_soft_delete => 'deleted',
    p_touch => 'updated_at', p_server_owned => '{created_by,created_at,stamp}'
);
select sync.enable('marks', p_hard_delete => true);
select sync.enable('flags', p_soft_delete => 'gone');
"""


class Judge:
    """The web client's side, in a process of its own."""

    def __init__(self, script: Path, setup: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell(setup)

    def tell(self, line: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def ask(self, line: dict[str, Any]) -> Any:
        assert self.process.stdout
        self.tell(line)
        answer = self.process.stdout.readline()
        assert answer, "the web client's side has ended"
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The web client's side as one file for Node."""
    assert shutil.which("node"), "Node is missing: version 20 or newer runs the web client's tests"
    if not (CLIENT / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=CLIENT, check=True)
    folder = tmp_path_factory.mktemp("client")
    build = [str(CLIENT / "node_modules/.bin/vite"), "build", "--logLevel", "error"]
    ssr = ["--ssr", "test/random-operations.ts", "--outDir", str(folder), "--emptyOutDir"]
    subprocess.run([*build, *ssr], cwd=CLIENT, check=True)
    (file,) = folder.glob("*.js")
    return file.rename(file.with_suffix(".mjs"))


@pytest.fixture
def conn(pg: Server) -> Iterator[psycopg.Connection]:
    with pg.database() as database:
        connection = prepared(database)
        yield connection
        connection.close()


def prepared(database: Database) -> psycopg.Connection:
    """The tables, and limits that are passed now and then."""
    conn = database.connect()
    conn.execute(TABLES.encode())
    for name, most in LIMITS.items():
        conn.execute("select sync.configure(%s, %s)", (name, most))
    return conn


def schema_of(conn: psycopg.Connection) -> dict[str, Any]:
    """What clients are told of the tables."""
    schema: dict[str, Any] = value(conn, "select sync.describe()")
    tables = {name: schema["tables"][name] for name in ("things", "marks", "flags")}
    return {**schema, "tables": tables}


def begin(conn: psycopg.Connection) -> None:
    """As alice, at a time that is known, in the transaction that has begun."""
    conn.execute("select set_config('rowcast.now', %s, true)", (NOW,))
    conn.execute("select sync.act_as(%s)", (ALICE,))


def carry_out(conn: psycopg.Connection, requests: list[str]) -> list[str]:
    """The answers to requests."""
    return [value(conn, "select sync.write(%s::jsonb)::text", request) for request in requests]


def find(conn: psycopg.Connection, query: str) -> str:
    """The answer to a query, or its refusal."""
    try:
        with conn.transaction():
            answer: str = value(conn, "select sync.query(%s::jsonb)::text", query)
            return answer
    except psycopg.Error as error:
        return json.dumps({"error": refusal_of(error)})


@pytest.fixture
def judge(conn: psycopg.Connection, script: Path) -> Iterator[Judge]:
    print(f"ROWCAST_RANDOM_SEED={SEED}")  # shown where the test fails
    setup = {"schema": schema_of(conn), "userId": ALICE, "now": NOW, "limits": LIMITS, "seed": SEED}
    judge = Judge(script, setup)
    yield judge
    judge.close()


def test_random_transactions_end_alike(conn: psycopg.Connection, judge: Judge) -> None:
    for first in range(0, SEQUENCES, BATCH):
        numbers = [first, min(first + BATCH, SEQUENCES)]
        with conn.transaction(force_rollback=True):
            begin(conn)
            answers = carry_out(conn, judge.ask({"make": numbers}))
        found = judge.ask({"judge": numbers, "answers": answers})
        assert found == [], "\n".join(found)


def test_random_queries_find_alike(conn: psycopg.Connection, judge: Judge) -> None:
    for first in range(0, SEQUENCES, 10 * BATCH):
        numbers = [first, min(first + 10 * BATCH, SEQUENCES)]
        with conn.transaction(force_rollback=True):
            # The web client's filters know no other limits than the usual ones.
            conn.execute("select sync.configure('max_depth', 32)")
            conn.execute("select sync.configure('max_list_items', 10000)")
            begin(conn)
            makers = [[at, at + BATCH] for at in range(first, first + 4 * BATCH, BATCH)]
            made = carry_out(conn, [judge.ask({"make": some})[0] for some in makers])
            answers = [find(conn, query) for query in judge.ask({"ask": numbers})]
        found = judge.ask({"compare": numbers, "made": made, "answers": answers})
        assert found == [], "\n".join(found)
