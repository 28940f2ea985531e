"""Judges a run: what clients hold, what took effect, and what anybody was told.

Nothing here asks the engine what is right: readable rows come from a plain SELECT in the role and
claims of the user, and who could read a row when from the rows that memberships and parents had.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.faults.actions import Ledger
from tests.faults.client import Client, Record, Ref
from tests.faults.scene import Scene
from tests.faults.world import World

CANARY = re.compile(rb"canary-([0-9a-f-]{36}|column)")

# A lost row may be sent until this long after the commit that took it away; what the proxies hold
# back, and what a busy machine leaves unread for a moment, is received a little later.
REVOKED_SECONDS = 5.0
ON_THE_WAY_SECONDS = 1.5

# Table, its wire name, and by which key it hangs on what; memberships hang like anything else.
PARENTS = {
    "boards": ("workspaceId", "workspaces"),
    "tasks": ("boardId", "boards"),
    "comments": ("taskId", "tasks"),
    "workspaceMembers": ("workspaceId", "workspaces"),
    "notes": ("notebookId", "notebooks"),
    "notebookMembers": ("notebookId", "notebooks"),
}
TABLES = ("workspaces", "notebooks", *PARENTS)
MEMBERS = {"workspaceMembers": "workspaces", "notebookMembers": "notebooks"}


class Diverged(AssertionError):
    """A promise was broken; the message says which, and what was last heard of it."""


def snake(name: str) -> str:
    """The SQL name of a wire name."""
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


def camel(name: str) -> str:
    """The wire name of an SQL name."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


# --- convergence ---------------------------------------------------------------------------------


class Truth:
    """What each user may read now, by a fresh SELECT as that user."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._columns: dict[str, list[tuple[str, bool]]] = {}

    async def of(self, users: Iterable[str]) -> dict[str, dict[Ref, Record]]:
        """Every readable record, by user; all of them from one snapshot."""
        if not self._columns:
            await self._learn_columns()
        connection = await self._world.connect()
        found: dict[str, dict[Ref, Record]] = {}
        try:
            async with connection.transaction():
                await connection.execute("set transaction isolation level repeatable read")
                for user in users:
                    claims = json.dumps({"sub": user, "role": "authenticated"})
                    await connection.execute(
                        "select set_config('role', 'authenticated', true),"
                        " set_config('request.jwt.claims', %s, true)",
                        [claims],
                    )
                    found[user] = {}
                    for table in TABLES:
                        columns = self._columns[table]
                        names = ", ".join(f't."{snake(name)}"' for name, _ in columns)
                        rows = await connection.execute(
                            f"select to_jsonb(r) from (select {names} from public.{snake(table)} t)"
                            " r".encode()
                        )
                        for (row,) in await rows.fetchall():
                            record = self._wire(row, columns)
                            found[user][table, record["id"]] = record
                    await connection.execute("select set_config('role', 'none', true)")
        finally:
            await connection.close()
        return found

    async def _learn_columns(self) -> None:
        for table in TABLES:
            rows = await self._world.rows(
                "select attname, atttypid = 'timestamptz'::regtype as is_time"
                " from pg_attribute where attrelid = %s::regclass and attnum > 0"
                " and not attisdropped"
                " and has_column_privilege('authenticated', attrelid, attnum, 'select')",
                [f"public.{snake(table)}"],
            )
            self._columns[table] = [(camel(row["attname"]), row["is_time"]) for row in rows]

    @staticmethod
    def _wire(row: dict[str, Any], columns: list[tuple[str, bool]]) -> Record:
        record = {}
        for name, is_time in columns:
            value = row[snake(name)]
            if is_time and value is not None:
                at = datetime.fromisoformat(value).astimezone(UTC)
                value = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
            record[name] = value
        return record


def difference(client: Client, readable: dict[Ref, Record]) -> tuple[str, Ref] | None:
    """The first thing in which a client's keys differ from what its user may read."""
    for text, key in client.keys.items():
        held = client.view(text)
        expected = {ref[1]: r for ref, r in readable.items() if key.shows(ref, r)}
        for record_id in held.keys() | expected.keys():
            have, want = held.get(record_id), expected.get(record_id)
            if have == want:
                continue
            ref = (key.table, record_id)
            if have is None:
                return f"{text}: {ref} is missing", ref
            if want is None:
                return f"{text}: {ref} is too much: {have}", ref
            differing = {k: (have.get(k), want.get(k)) for k in have | want if have != want}
            names = {k: v for k, v in differing.items() if v[0] != v[1]}
            return f"{text}: {ref} differs, held and true: {names}", ref
    return None


async def explain(world: World, client: Client, what: str, ref: Ref) -> str:
    """A divergence with what the client heard last, and what the feed says."""
    lines = [f"{client.name} ({client.user}): {what}", f"cursor {client.cursor}"]
    lines += [f"  heard  {line}" for line in client.history(ref)]
    lines += [f"  heard  {line}" for line in client.history((ref[0], ""))]
    changes = await world.sql(
        "select seq, xid::text, kind, version, topics, left(patch::text, 200) as patch, class,"
        " class_before, pg_xact_commit_timestamp(xid::xid)::text as committed"
        " from sync_internal.changes where table_name = %s"
        " and (record_id = %s or record_id is null) order by seq desc limit 12",
        ref,
    )
    lines += [f"  feed   {change}" for change in reversed(changes or [])]
    return "\n".join(lines)


# --- exactly once --------------------------------------------------------------------------------


async def check_receipts(world: World, clients: list[Client], ledger: Ledger) -> None:
    """Every answer has its receipt; counters count what was applied; versions rise by one."""
    outcomes = {tx: outcome for client in clients for tx, outcome in client.outcomes.items()}
    rows = await world.rows(
        "select tx_id::text, outcome ->> 'status' as s from sync_internal.receipts"
    )
    stored = {row["tx_id"]: row["s"] for row in rows}
    for tx_id, outcome in outcomes.items():
        applied = outcome.status in ("applied", "duplicate")
        if applied != (stored.get(tx_id) == "applied"):
            raise Diverged(f"{tx_id} answered {outcome}, receipt {stored.get(tx_id)}")
    if too_many := {tx for tx, status in stored.items() if status == "applied"} - outcomes.keys():
        raise Diverged(f"applied, never answered so: {too_many}")
    counted: dict[str, int] = defaultdict(int)
    for tx_id, increments in ledger.increments.items():
        if stored.get(tx_id) == "applied":
            for task, by in increments.items():
                counted[task] += by
    for task, total in counted.items():
        (row,) = await world.rows(
            "select coalesce((metadata ->> 'count')::int, 0) as n from public.tasks where id = %s",
            [task],
        )
        if row["n"] != total:
            raise Diverged(f"counter {task} stands at {row['n']}; applied increments give {total}")
    skipped = await world.rows(
        """
        with lives as (
            select table_name, record_id, version, count(*) filter (where kind = 'insert')
                over (partition by table_name, record_id order by seq) as life
            from sync_internal.changes where kind in ('insert', 'update')
        )
        select table_name, record_id, life, count(*) as n, min(version), max(version)
        from lives group by 1, 2, 3
        having count(*) <> max(version) - min(version) + 1 or count(*) <> count(distinct version)
        limit 3
        """
    )
    if skipped:
        raise Diverged(f"versions skipped or repeated: {skipped}")


# --- secrecy -------------------------------------------------------------------------------------


@dataclass
class Told:
    """Contents a user received: when, and of which record."""

    at: float
    user: str
    ref: Ref


@dataclass
class Span:
    """A value that held from one commit to another, in seconds."""

    value: str
    since: float
    until: float = float("inf")


@dataclass
class Secrecy:
    """Witness of everything every client received."""

    scene: Scene
    leaks: list[str] = field(default_factory=list)
    _told: list[Told] = field(default_factory=list)

    def hear(self, user: str, text: bytes) -> None:
        """Some bytes a user received: looks for marks at once, and keeps which records they show."""
        for mark in CANARY.findall(text):
            if mark.decode() != user:
                self.leaks.append(f"{user} received canary-{mark.decode()}: {text[:500]!r}")
        try:
            body = json.loads(text)
        except ValueError:
            return  # the error page of nobody; its bytes were looked at
        if not isinstance(body, dict):
            return
        now = time.time()
        for table, records in (body.get("recordMap") or {}).items():
            self._told += [Told(now, user, (table, record_id)) for record_id in records]
        for element in body.get("updates") or ():
            if not element.get("gone"):
                table, _, record_id = element["key"].partition(":")
                self._told.append(Told(now, user, (table, record_id)))

    async def check(self, world: World) -> int:
        """Whether each record was told only to who could read it. Returns how many were judged.

        A record may be told from the commit that gave it on, and until a while after the commit
        that took it away.
        """
        if self.leaks:
            raise Diverged("\n".join(["secrets were told:", *self.leaks[:5]]))
        told, self._told = self._told, []
        access = await Access.read(world)
        window = REVOKED_SECONDS + ON_THE_WAY_SECONDS
        for one in told:
            if not access.could_read(one.user, one.ref, one.at - window, one.at):
                raise Diverged(
                    f"{one.user} was told of {one.ref} at {one.at:.3f}, which he could not read"
                    f"\n{access.explain(one.user, one.ref)}"
                )
        return len(told)


class Access:
    """Who could read which row when, from the rows that parents and memberships had."""

    def __init__(self) -> None:
        self._parents: dict[Ref, list[Span]] = defaultdict(list)
        self._members: dict[tuple[Ref, str], list[Span]] = defaultdict(list)
        self._memberships: dict[Ref, tuple[Ref, str]] = {}
        self._owners: dict[Ref, str] = {}

    @classmethod
    async def read(cls, world: World) -> "Access":
        """From all changes so far, in the order in which they were committed."""
        access = cls()
        rows = await world.rows(
            "select table_name, record_id, kind, patch,"
            " extract(epoch from pg_xact_commit_timestamp(xid::xid))::float8 as at"
            " from sync_internal.changes where kind <> 'update' or table_name <> 'tasks'"
            " or patch ->> 'boardId' is not null"
            " order by at, seq"
        )
        for row in rows:
            access._take(row["table_name"], row["record_id"], row["kind"], row["patch"], row["at"])
        return access

    def _take(
        self, table: str, record_id: str | None, kind: str, patch: Record | None, at: float
    ) -> None:
        if record_id is None:
            for ref in [ref for ref in self._parents if ref[0] == table]:
                self._end(ref, at)
            return
        ref = (table, record_id)
        if kind == "delete":
            self._end(ref, at)
            return
        values = patch or {}
        if kind == "insert" and "ownerId" in values:
            self._owners[ref] = values["ownerId"]
        if table in PARENTS and PARENTS[table][0] in values:
            key, parent_table = PARENTS[table]
            self._close(self._parents[ref], at)
            self._parents[ref].append(Span(values[key], at))
            if table in MEMBERS:
                member = ((parent_table, values[key]), values["userId"])
                self._memberships[ref] = member
                self._members[member].append(Span("", at))

    def _end(self, ref: Ref, at: float) -> None:
        self._close(self._parents[ref], at)
        if ref in self._memberships:
            self._close(self._members[self._memberships.pop(ref)], at)

    @staticmethod
    def _close(spans: list[Span], at: float) -> None:
        if spans and spans[-1].until > at:
            spans[-1].until = at

    def could_read(self, user: str, ref: Ref, since: float, until: float) -> bool:
        """Whether there was a moment between the two at which the user could read the row."""
        table, _ = ref
        if table in PARENTS:
            parent_table = PARENTS[table][1]
            return any(
                self.could_read(
                    user, (parent_table, span.value), max(since, span.since), min(until, span.until)
                )
                for span in self._parents.get(ref, ())
                if span.since <= until and span.until >= since
            )
        if self._owners.get(ref) == user and table in ("workspaces", "notebooks"):
            return True
        return any(
            span.since <= until and span.until >= since
            for span in self._members.get((ref, user), ())
        )

    def explain(self, user: str, ref: Ref) -> str:
        """What is known of a row."""
        lines = [f"{ref}: {self._parents.get(ref)}"]
        for span in self._parents.get(ref, ()):
            parent = (PARENTS[ref[0]][1], span.value)
            lines.append(
                f"{parent}: {self._parents.get(parent)} {self._members.get((parent, user))}"
            )
        return "\n".join(lines)
