"""Running the shared vectors against the engine; tests/vectors/README.md says what they mean."""

import json
import re
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.postgres import Database

FOLDER = Path(__file__).parents[1] / "vectors"
TABLE = "vectorItems"
NOW = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
USERS = {
    "alice": "00000000-0000-7000-8000-00000000a11c",
    "bob": "00000000-0000-7000-8000-000000000b0b",
    "carol": "00000000-0000-7000-8000-00000000ca01",
}
# Placeholders that are the same in every case.
IDS = (
    {f"${name}": value for name, value in USERS.items()}
    | {f"${name}": f"00000000-0000-7000-9000-{n:012x}" for n, name in enumerate("abcdefghij", 1)}
    | {
        "$id": "00000000-0000-7000-9000-0000000000f1",
        "$other": "00000000-0000-7000-9000-0000000000f2",
        "$mark": "a mark",
    }
)
# What the wire makes of SQL types; the rest is "other", which is read only.
TYPES = {
    "text": "text",
    "character varying": "text",
    "integer": "integer",
    "bigint": "bigint",
    "numeric": "numeric",
    "double precision": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp with time zone": "timestamptz",
    "uuid": "uuid",
    "bytea": "bytea",
    "jsonb": "jsonb",
    "text[]": "text[]",
    "integer[]": "integer[]",
    "uuid[]": "uuid[]",
    "bigint[]": "bigint[]",
    "numeric[]": "numeric[]",
}


@dataclass(frozen=True)
class Case:
    """One vector, and the file it stands in."""

    file: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file}: {self.body['name']}"


def read_cases() -> Iterator[Case]:
    """All vectors, file by file."""
    for path in sorted(FOLDER.glob("*.json")):
        if path.name != "schema.json":
            for body in json.loads(path.read_text()):
                yield Case(path.stem, body)


def new_tx_id(version: int = 7) -> str:
    """A fresh transaction id; version 7 carries the time."""
    if version == 4:
        return str(uuid.uuid4())
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 2 << 62))


def snake(name: str) -> str:
    """The SQL name of a wire name."""
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def expand(value: Any, names: dict[str, Any]) -> Any:
    """A value with its placeholders and generators filled in."""
    match value:
        case str():
            return names.get(value, value)
        case {"$text": int(n)}:
            return "x" * n
        case {"$list": int(n)}:
            return list(range(n))
        case {"$deep": int(n)}:
            return json.loads("[" * n + "]" * n)
        case {"$repeat": int(n), **rest}:
            (item,) = rest.values()
            return [expand(item, names) for _ in range(n)]
        case dict():
            return {key: expand(item, names) for key, item in value.items()}
        case list():
            return [expand(item, names) for item in value]
    return value


def expand_text(text: str, names: dict[str, Any]) -> str:
    """The body of a request with its placeholders filled in."""
    text = re.sub(r"\$open(\d+)", lambda found: "[" * int(found[1]), text)
    text = re.sub(r"\$close(\d+)", lambda found: "]" * int(found[1]), text)
    text = re.sub(r"\$zeros(\d+)", lambda found: ",".join(["0"] * int(found[1])), text)
    return re.sub(r"\$[a-z]+[0-9]*", lambda found: str(names.get(found[0], found[0])), text)


@dataclass
class Matcher:
    """Compares what came with what was expected; all of `$now` in one answer are the same time."""

    now: set[str] = field(default_factory=set)

    def same(self, expected: Any, actual: Any) -> bool:
        """Deep equality of JSON, where 1 is not true."""
        match expected:
            case "$any":
                return True
            case "$now":
                if not isinstance(actual, str) or not NOW.fullmatch(actual):
                    return False
                self.now.add(actual)
                return len(self.now) == 1
            case dict():
                return (
                    isinstance(actual, dict)
                    and expected.keys() == actual.keys()
                    and all(self.same(item, actual[key]) for key, item in expected.items())
                )
            case list():
                return (
                    isinstance(actual, list)
                    and len(expected) == len(actual)
                    and all(map(self.same, expected, actual))
                )
            case bool():
                return actual is expected
            case int() | float() if isinstance(actual, int | float):
                return not isinstance(actual, bool) and float(actual) == float(expected)
        return not isinstance(actual, bool) and bool(expected == actual)

    def check(self, expected: dict[str, Any], actual: dict[str, Any] | None) -> None:
        """The fields that were expected, in an object that may have more."""
        assert actual is not None, "the record is not there"
        for key, value in expected.items():
            if value == "$absent":
                assert key not in actual, f"{key} is there"
            else:
                assert key in actual, f"{key} is missing"
                assert self.same(value, actual[key]), f"{key}: {actual[key]!r}, expected {value!r}"


class Runner:
    """Runs cases on one database; each leaves it as it was, but for receipts and feed."""

    def __init__(self, db: Database) -> None:
        self.conn = db.connect()
        self.gateway = db.connect("rowcast_gateway")
        self.names: dict[str, Any] = {}

    def run(self, case: Case) -> None:
        """Carries a case out and compares."""
        body = case.body
        self.names = IDS | {f"$tx{n}": new_tx_id() for n in range(1, 4)} | {"$v4": new_tx_id(4)}
        try:
            self.store(body)
            if "query" in body:
                self.query(body)
            elif "steps" in body:
                for step in body["steps"]:
                    self.step(step)
            else:
                transaction = {"operations": body["operations"]} | body.get("tx", {})
                self.step(
                    {
                        "as": body.get("as", "alice"),
                        "transactions": [transaction],
                        "results": [body["expect"]],
                    }
                )
        finally:
            for table in ("vector_items", "vector_marks", "vector_counters"):
                self.conn.execute(f"delete from public.{table}")

    # Records

    def store(self, body: dict[str, Any]) -> None:
        """Puts the records of a case into the table, parents first."""
        records = list(body.get("records", [])) + list(body.get("others", []))
        if body.get("record") is not None:
            records.append({"id": "$id"} | body["record"])
        for record in records:
            row = {"title": "A title", "createdBy": "$alice"} | record
            row = {snake(key): value for key, value in expand(row, self.names).items()}
            columns = ", ".join(row)
            self.conn.execute(
                f"insert into public.vector_items ({columns}) select {columns} "
                "from jsonb_populate_record(null::public.vector_items, %s)",
                (json.dumps(row),),
            )

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every row as it is stored, by table and id."""
        found = self.conn.execute(
            "select 'vectorItems', id::text, to_jsonb(t) from public.vector_items t "
            "union all select 'vectorMarks', id, to_jsonb(t) from public.vector_marks t "
            "union all select 'vectorCounters', id::text, to_jsonb(t) from public.vector_counters t"
        )
        return {(table, id_): row for table, id_, row in found}

    # Writing

    def step(self, step: dict[str, Any]) -> None:
        """One request: its answer, and what it left in the tables."""
        before = self.rows()
        self.names["$version"] = before.get((TABLE, self.names["$id"]), {}).get("version")
        if "body" in step:
            status, answer = self.post(step["as"], expand_text(step["body"], self.names))
        else:
            transactions = expand(step["transactions"], self.names)
            for transaction in transactions:
                transaction.setdefault("txId", new_tx_id())
            status, answer = self.write(step["as"], transactions)
        if "answer" in step:
            expected = expand(step["answer"], self.names)
            if status == 200:
                assert expected["status"] == 200, answer
                assert answer["status"] == "applied"
                if "after" in expected:
                    record = answer["recordMap"][TABLE][self.names["$id"]]
                    Matcher().check(expected["after"], record)
            else:
                self.refused(expected, answer | {"status": status})
                assert self.rows() == before, "a refused request changed something"
            return
        assert status == 200, answer
        expected = expand(step["results"], self.names)
        assert len(answer["results"]) == len(expected), answer
        for one, result in zip(expected, answer["results"], strict=True):
            self.result(one, result, answer, before)
        if all(one["status"] != 200 for one in expected):
            assert self.rows() == before, "a refused transaction changed something"
        if step.get("alike"):
            errors = [
                {key: value for key, value in result["error"].items() if key not in ("id", "txId")}
                for result in answer["results"]
            ]
            assert all(error == errors[0] for error in errors), errors

    def write(self, user: str, transactions: list[Any]) -> tuple[int, Any]:
        """Calls sync.write as a user; a raised refusal is its status and detail."""
        role, sub = ("anon", None) if user == "anon" else ("authenticated", USERS[user])
        try:
            with self.conn.transaction():
                self.conn.execute("select sync.act_as(%s, %s)", (sub, role))
                row = self.conn.execute(
                    "select sync.write(%s::jsonb)", (json.dumps(transactions),)
                ).fetchone()
                assert row
                return 200, row[0]
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith("PT"):
                raise
            return int(str(error.sqlstate)[2:]), json.loads(error.diag.message_detail or "{}")

    def post(self, user: str, body: str) -> tuple[int, Any]:
        """Hands the text of a request to the gateway's door, as the gateway does."""
        claims = json.dumps({"sub": USERS[user], "role": "authenticated"})
        row = self.gateway.execute(
            "select status, body from sync.gateway_write(%s::text[], %s::text[])",
            ([claims], [body]),
        ).fetchone()
        assert row
        return row[0], json.loads(row[1])

    def refused(self, expected: dict[str, Any], error: dict[str, Any]) -> None:
        """A refusal: status, code and place."""
        statuses = expected["status"]
        assert error["status"] in (statuses if isinstance(statuses, list) else [statuses]), error
        codes = expected.get("code", error.get("code"))
        assert error.get("code") in (codes if isinstance(codes, list) else [codes]), error
        for name in ("limit", "constraint", "detail", "blockedBy"):
            if name in expected:
                assert error.get(name) == expected[name], error
        if "key" in expected:
            key = error.get("key")
            assert (".".join(key) if isinstance(key, list) else key) == expected["key"], error
        if expected.get("conflicts") == "$absent":
            assert "conflicts" not in error, error
        elif "conflicts" in expected:
            assert error.get("conflicts") == expected["conflicts"], error
        if "conflictRecord" in expected:
            Matcher().check(
                expected["conflictRecord"], error["recordMap"][TABLE][self.names["$id"]]
            )

    def result(
        self,
        expected: dict[str, Any],
        result: dict[str, Any],
        answer: dict[str, Any],
        before: dict[tuple[str, str], dict[str, Any]],
    ) -> None:
        """One entry of results with what belongs to it."""
        if expected["status"] != 200:
            assert result["status"] == "refused", result
            self.refused(expected, result["error"])
            return
        outcome = expected.get("outcome")
        assert result["status"] == outcome if outcome else "error" not in result, result
        table, id_ = expected.get("table", TABLE), expected.get("id", self.names["$id"])
        after = self.rows()
        matcher = Matcher()
        record = answer["recordMap"].get(table, {}).get(id_)
        if "record" in expected:
            if expected["record"] is None:
                assert record is None
                assert (table, id_) not in after
            else:
                matcher.check(expected["record"], record)
        for other in expected.get("also", []):
            matcher.check(other["record"], answer["recordMap"].get(TABLE, {}).get(other["id"]))
        if "versionDelta" in expected:
            was, now = before[table, id_]["version"], after[table, id_]["version"]
            assert now - was == expected["versionDelta"], f"version {was} -> {now}"
            assert now != was or after == before, "a change without a version"
            if result["status"] == "applied":
                assert {"table": table, "id": id_, "version": now} in result["versions"]
        if "stored" in expected:
            matcher.check(expected["stored"], after[table, id_])
        if "values" in expected:
            assert matcher.same(expected["values"], result.get("values"))

    # Reading

    def query(self, body: dict[str, Any]) -> None:
        """Runs a query, and its further pages."""
        query, expected = expand(body["query"], self.names), body["expect"]
        pages = expand(body.get("pages", [expected.get("ids")]), self.names)
        for number, page in enumerate(pages):
            try:
                answer = self.ask(query)
            except psycopg.Error as error:
                assert (error.sqlstate or "").startswith("PT"), error
                status = int(str(error.sqlstate)[2:])
                detail = json.loads(error.diag.message_detail or "{}")
                self.refused(expected, detail | {"status": status})
                return
            assert expected["status"] == 200, "the query was not refused"
            if "orderBy" in query:
                assert answer["ids"] == page
            else:
                assert sorted(answer["ids"]) == page
            assert set(answer["recordMap"].get(TABLE, {})) == set(page)
            if number + 1 < len(pages):
                query = query | {"after": answer["next"]}

    def ask(self, query: dict[str, Any]) -> dict[str, Any]:
        with self.conn.transaction():
            self.conn.execute("select sync.act_as(%s)", (USERS["alice"],))
            row = self.conn.execute("select sync.query(%s::jsonb)", (json.dumps(query),)).fetchone()
        assert row
        answer: dict[str, Any] = row[0] if isinstance(row[0], dict) else json.loads(row[0])
        return answer


def describe(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """What a client has to know of the vectors' tables, from the catalogue: see schema.json."""
    rows = conn.execute(
        """
        select
            c.relname, a.attname, format_type(a.atttypid, null), not a.attnotnull,
            case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
            nullif(a.atttypmod, -1) - 4,
            (select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum e
             where e.enumtypid = a.atttypid),
            (select f.confrelid::regclass::text from pg_constraint f
             where f.conrelid = c.oid and f.contype = 'f' and f.conkey = array[a.attnum]),
            has_column_privilege(r.name, c.oid, a.attnum, 'select'),
            a.attgenerated = '' and has_column_privilege(r.name, c.oid, a.attnum, 'insert'),
            a.attgenerated = '' and has_column_privilege(r.name, c.oid, a.attnum, 'update')
        from pg_class c
        cross join (values ('authenticated')) as r (name)
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relname in ('vector_items', 'vector_marks', 'vector_counters')
        order by c.relname, a.attnum
        """
    ).fetchall()
    tables: dict[str, Any] = {}
    for table, name, type_, nullable, default, length, enum, parent, *rights in rows:
        read, insert, update = rights
        columns = tables.setdefault(camel(table), {"columns": {}})["columns"]
        columns[camel(name)] = {
            "type": "enum" if enum else TYPES.get(type_, "other"),
            "nullable": nullable,
            **({"default": constant(default)} if default is not None else {}),
            **({"maxLength": length} if type_ == "character varying" else {}),
            **({"values": enum} if enum else {}),
            **({"references": camel(parent)} if parent else {}),
            "read": read,
            "create": insert,
            "update": update,
        }
    for name, told in tables.items():
        told["serverOwned"] = [key for key in ("createdBy", "createdAt") if key in told["columns"]]
        told["softDelete"] = "deleted" if name == TABLE else None
        told["touch"] = "updatedAt" if name == TABLE else None
        told["hardDelete"] = name == "vectorMarks"
    return tables


def constant(default: str) -> Any:
    """A default of SQL as JSON, or the placeholder for what the server computes."""
    computed = {"auth.uid()": "$user", "now()": "$now", "gen_random_uuid()": "$uuid"}
    if default in computed:
        return computed[default]
    text = re.fullmatch(r"'(.*)'::(text|jsonb)", default)
    if text:
        return text[1] if text[2] == "text" else json.loads(text[1])
    return json.loads(default)


def camel(name: str) -> str:
    """The wire name of an SQL name."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
