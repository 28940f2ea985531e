"""Judges a run: what clients hold, what took effect, and what anybody was told.

Nothing here asks the engine what is right: readable rows come from a plain SELECT in the role and
claims of the user, and who could read a row when from the rows that memberships and parents had.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.faults.actions import Ledger
from tests.faults.client import Client, Record, Ref, key_ref
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


async def check_receipts(
    world: World, clients: list[Client], ledger: Ledger, but: str = ""
) -> None:
    """Every answer has its receipt; counters count what was applied; versions rise by one. What the
    user `but` has written is not looked at.
    """
    outcomes = {tx: outcome for client in clients for tx, outcome in client.outcomes.items()}
    rows = await world.rows(
        "select tx_id::text, outcome ->> 'status' as s from sync_internal.receipts"
        " where author <> %s",
        [but],
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


@dataclass(frozen=True)
class Told:
    """Contents a user received: when, of which record, and of which version."""

    at: float
    user: str
    ref: Ref
    version: int


@dataclass
class Span:
    """A value that held from one commit to another, in seconds."""

    value: str
    since: float
    until: float = float("inf")


class Secrecy:
    """Witness of everything every client received."""

    def __init__(self) -> None:
        self._leaks: list[str] = []
        self._told: list[Told] = []
        self._access = Access()

    def hear(self, user: str, text: bytes) -> None:
        """Some bytes a user received: looks for marks, and keeps which records they show."""
        for mark in CANARY.findall(text):
            if mark.decode() != user:
                self._leaks.append(f"{user} received canary-{mark.decode()}: {text[:500]!r}")
        try:
            body = json.loads(text)
        except ValueError:
            return  # no answer of ours; its bytes were looked at
        if not isinstance(body, dict):
            return
        now = time.time()
        for table, records in (body.get("recordMap") or {}).items():
            for record_id, record in records.items():
                self._told.append(Told(now, user, (table, record_id), record["version"]))
        for element in body.get("updates") or ():
            if not element.get("gone"):
                self._told.append(Told(now, user, key_ref(element["key"]), element["version"]))

    async def check(self, world: World) -> int:
        """Whether each version was told only to who could read it. Returns how many were judged.

        The place where the row stood in that version must be readable: from the commit that gave
        it on, and until a while after the commit that took it away. Call it at rest.
        """
        if self._leaks:
            raise Diverged("\n".join(["secrets were told:", *self._leaks[:5]]))
        await self._access.follow(world)
        told, self._told = self._told, []
        window = REVOKED_SECONDS + ON_THE_WAY_SECONDS
        for one in told:
            if not self._access.could_see(one, one.at - window, one.at):
                raise Diverged(f"{one} could not be read by him\n{self._access.explain(one)}")
        return len(told)


class Access:
    """Who could read what when, from the rows that parents and memberships had."""

    def __init__(self) -> None:
        self._seq = 0
        self._places: dict[Ref, list[Span]] = defaultdict(list)
        self._versions: dict[Ref, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._members: dict[tuple[Ref, str], list[Span]] = defaultdict(list)
        self._memberships: dict[Ref, tuple[Ref, str]] = {}
        self._owners: dict[Ref, str] = {}

    async def follow(self, world: World) -> None:
        """Takes in what was committed since, in the order of commits."""
        rows = await world.rows(
            "select seq, table_name, record_id, version, kind, patch,"
            " extract(epoch from pg_xact_commit_timestamp(xid::xid))::float8 as at"
            " from sync_internal.changes where seq > %s order by at, seq",
            [self._seq],
        )
        for row in rows:
            self._seq = max(self._seq, row["seq"])
            if row["record_id"] is None:
                for ref in [ref for ref in self._places if ref[0] == row["table_name"]]:
                    self._end(ref, row["at"])
            elif row["kind"] == "delete":
                self._end((row["table_name"], row["record_id"]), row["at"])
            else:
                self._take((row["table_name"], row["record_id"]), row)

    def _take(self, ref: Ref, change: dict[str, Any]) -> None:
        values = change["patch"] or {}
        if "ownerId" in values:
            self._owners[ref] = values["ownerId"]
        if ref[0] not in PARENTS:
            return
        key, parent_table = PARENTS[ref[0]]
        places = self._places[ref]
        if key in values:
            self._close(places, change["at"])
            places.append(Span(values[key], change["at"]))
            if ref[0] in MEMBERS and change["kind"] == "insert":
                member = ((parent_table, values[key]), values["userId"])
                self._memberships[ref] = member
                self._members[member].append(Span("", change["at"]))
        self._versions[ref][change["version"]].add(places[-1].value)

    def _end(self, ref: Ref, at: float) -> None:
        self._close(self._places[ref], at)
        if ref in self._memberships:
            self._close(self._members[self._memberships.pop(ref)], at)

    @staticmethod
    def _close(spans: list[Span], at: float) -> None:
        if spans:
            spans[-1].until = min(spans[-1].until, at)

    def could_see(self, told: Told, since: float, until: float) -> bool:
        """Whether there was a moment between the two at which the user could read the place where
        the row stood in that version.
        """
        table, _ = told.ref
        if table not in PARENTS:
            return self._could_read(told.user, told.ref, since, until)
        return any(
            self._could_read(told.user, (PARENTS[table][1], place), since, until)
            for place in self._versions[told.ref][told.version]
        )

    def _could_read(self, user: str, ref: Ref, since: float, until: float) -> bool:
        if ref[0] in PARENTS:
            return any(
                self._could_read(
                    user,
                    (PARENTS[ref[0]][1], span.value),
                    max(since, span.since),
                    min(until, span.until),
                )
                for span in self._places[ref]
                if span.since <= until and span.until >= since
            )
        return self._owners.get(ref) == user or any(
            span.since <= until and span.until >= since for span in self._members[ref, user]
        )

    def explain(self, told: Told) -> str:
        """Where the row and what it hangs on stood, and when the user was a member."""
        lines = [f"in version {told.version}: {set(self._versions[told.ref][told.version])}"]
        refs = [told.ref]
        while refs:
            ref = refs.pop()
            if ref[0] in PARENTS:
                lines.append(f"{ref}: {self._places[ref][-4:]}")
                refs += {(PARENTS[ref[0]][1], span.value) for span in self._places[ref][-4:]}
            else:
                lines.append(f"{ref}: member {self._members[ref, told.user]}")
        return "\n".join(lines)
