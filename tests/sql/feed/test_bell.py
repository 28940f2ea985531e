"""When writers ring: bits of relays, fences, and the wake-ups that must not be lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.postgres import Database
from tests.sql.engine import (
    DEADLINE,
    TASK_1,
    TASK_2,
    TASK_3,
    Background,
    Gate,
    pid,
    value,
    wait_until,
)

pytestmark = pytest.mark.both_versions

SHARED = 62
LEVELS = [
    IsolationLevel.READ_COMMITTED,
    IsolationLevel.REPEATABLE_READ,
    IsolationLevel.SERIALIZABLE,
]


class Relay:
    """What a gateway does with the bell, a step at a time."""

    def __init__(self, db: Database) -> None:
        self.keeper = db.connect("rowcast_gateway")
        self.listener = db.connect("rowcast_gateway")
        self.listener.execute("listen rowcast")
        self.listener.execute("listen until_here")
        self.gate = Gate(db)
        self.cursor = self.gate.cursor()
        self.bit: int | None = None  # while it is set
        self.fence = 0

    def ring(self) -> int:
        self.bit = self._ask("select sync.gateway_bell(true)")
        return self.bit

    def rest(self) -> None:
        assert self._ask("select sync.gateway_bell(false)") == self.bit
        self.bit = None

    def _ask(self, statement: str) -> int:
        """Null where another relay is at it."""
        bit: int = wait_until(lambda: value(self.keeper, f"{statement}::text"), "it has a bit")
        return int(bit)

    def arm(self) -> None:
        self.ring()
        self.fence = value(self.keeper, "select sync.gateway_fence()")

    def read(self) -> tuple[int, bool]:
        """How many changes there are, and whether it may sleep now."""
        answer = self.gate.changes(self.cursor)
        self.cursor = answer["cursor"]
        count = len(answer["changes"])
        return count, not count and self.armed(answer["bell"]) and answer["xmin"] > self.fence

    def armed(self, bits: int) -> bool:
        return self.bit is not None and bool(bits >> self.bit & 1)

    def fall_asleep(self) -> None:
        self.arm()
        wait_until(lambda: self.read()[1], "the relay may sleep")
        self.heard()

    def heard(self) -> int:
        """How often it rang since this was last asked."""
        self.keeper.execute("notify until_here")
        for rings, notification in enumerate(self.listener.notifies(timeout=DEADLINE)):
            if notification.channel == "until_here":
                return rings
        raise AssertionError("the listener heard nothing")

    def die(self) -> None:
        backend = pid(self.keeper)
        self.keeper.close()
        query = "select count(*) from pg_stat_activity where pid = %s"
        wait_until(lambda: value(self.listener, query, backend) == 0, "its session is gone")


@pytest.fixture
def relay(db: Database) -> Relay:
    return Relay(db)


@pytest.fixture
def bits(conn: psycopg.Connection) -> Callable[[], int]:
    return lambda: value(conn, "select last_value from sync_internal.bell")


@contextmanager
def writing(db: Database, level: IsolationLevel, task: str = TASK_1) -> Iterator[None]:
    """A transaction that has written, its feed row included, and commits at the end."""
    writer = db.connect(autocommit=False)
    writer.isolation_level = level
    writer.execute("update tasks set title = title || '.' where id = %s", (task,))
    yield
    writer.commit()
    writer.close()


# Wake-ups


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_writer_that_looked_too_early_keeps_the_relay_awake(
    db: Database, relay: Relay, level: IsolationLevel
) -> None:
    with writing(db, level):
        relay.arm()
        # It will not ring, so nobody may sleep, however often he reads.
        assert [relay.read() for _ in range(3)] == [(0, False)] * 3
    assert relay.heard() == 0
    assert relay.read()[0] == 1
    assert relay.read() == (0, True)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_writer_of_an_older_snapshot_rings(
    db: Database, relay: Relay, level: IsolationLevel
) -> None:
    writer = db.connect(autocommit=False)
    writer.isolation_level = level
    writer.execute("select from tasks")
    relay.fall_asleep()
    writer.execute("update tasks set title = title || '.' where id = %s", (TASK_1,))
    writer.commit()
    assert relay.heard() == 1
    assert relay.read()[0] == 1


def test_writer_with_the_id_before_the_fence_keeps_the_relay_awake(
    db: Database, relay: Relay
) -> None:
    # The id of the transaction that sets the bit is older than it, so it is no fence: between
    # them a writer takes the next id, looks in vain, and is in no snapshot's list, being younger
    # than all that have ended.
    with relay.keeper.transaction():
        early = value(relay.keeper, "select sync.gateway_fence()")
        writer = db.connect(autocommit=False)
        writer.execute("update tasks set title = title || '.' where id = %s", (TASK_1,))
        relay.ring()
    answer = relay.gate.changes(relay.cursor)
    assert (answer["changes"], answer["xmin"] > early) == ([], True)
    assert value(relay.keeper, "select pg_current_snapshot()::text").endswith(":")

    relay.fence = value(relay.keeper, "select sync.gateway_fence()")
    assert relay.read() == (0, False)
    writer.commit()
    assert relay.heard() == 0
    assert relay.read()[0] == 1


def test_foreign_transaction_keeps_the_relay_reading_and_others_ring_meanwhile(
    db: Database, relay: Relay, conn: psycopg.Connection
) -> None:
    foreign = db.connect(autocommit=False)
    foreign.execute("create table elsewhere (id integer)")
    relay.arm()
    assert relay.read() == (0, False)
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    assert relay.heard() == 1
    assert relay.read() == (1, False)
    foreign.rollback()
    assert relay.read() == (0, True)


def test_one_look_of_several_is_enough(db: Database, relay: Relay) -> None:
    writer = db.connect(autocommit=False)
    writer.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    relay.arm()
    writer.execute("update tasks set title = 'y' where id = %s", (TASK_2,))
    writer.commit()
    assert relay.heard() == 1


def test_sleep_lasts_while_the_bit_stays_set(relay: Relay, conn: psycopg.Connection) -> None:
    relay.fall_asleep()
    for turn in range(3):
        conn.execute("update tasks set title = %s where id = %s", (f"{turn}", TASK_1))
        assert relay.heard() == 1
        assert relay.read()[0] == 1
        assert relay.read() == (0, True)
    relay.rest()
    conn.execute("update tasks set title = 'z' where id = %s", (TASK_1,))
    assert relay.heard() == 0


def test_relays_and_writers_at_every_level_lose_no_wake_up(db: Database) -> None:
    """Relays that sleep whenever they may, and end up having read all there is by rings alone."""
    relays = [Relay(db) for _ in range(3)]
    rounds, rows = 40, len(LEVELS) * 40

    def write(level: IsolationLevel, task: str) -> None:
        for _ in range(rounds):
            with writing(db, level, task):
                pass

    def follow(relay: Relay) -> int:
        """Reads until all was read; asleep, it is only ever woken by a ring."""
        seen = sleeps = 0
        while seen < rows:
            if relay.bit is None:
                relay.arm()
            found, may_sleep = relay.read()
            seen += found
            if may_sleep and seen < rows:
                sleeps += 1
                rung = list(relay.listener.notifies(timeout=DEADLINE, stop_after=1))
                assert rung, f"asleep with {rows - seen} changes to come"
                # Now it stops sleeping for a while, now it does not.
                if sleeps % 3 == 0:
                    relay.rest()
        return sleeps

    following = [Background(lambda relay=relay: follow(relay)) for relay in relays]  # type: ignore[misc]
    writers = [
        Background(lambda level=level, task=task: write(level, task))  # type: ignore[misc]
        for level, task in zip(LEVELS, (TASK_1, TASK_2, TASK_3), strict=True)
    ]
    for job in (*writers, *following):
        job.result()


# Bits


def test_each_relay_has_a_bit_of_its_own(db: Database, bits: Callable[[], int]) -> None:
    relays = [Relay(db) for _ in range(3)]
    assert [relay.ring() for relay in relays] == [0, 1, 2]
    assert [relay.ring() for relay in relays] == [0, 1, 2]
    assert bits() == 0b111
    relays[1].rest()
    assert bits() == 0b101
    # Awake it keeps its place.
    assert Relay(db).ring() == 3
    assert bits() == 0b1101


def test_bits_of_the_dead_are_cleared_by_the_next(
    db: Database, relay: Relay, bits: Callable[[], int]
) -> None:
    dead, awake = Relay(db), Relay(db)
    assert (relay.ring(), dead.ring(), awake.ring()) == (0, 1, 2)
    awake.rest()
    dead.die()
    awake.die()
    assert bits() == 0b011
    relay.ring()
    assert bits() == 0b001
    assert Relay(db).ring() == 1


def test_relays_beyond_the_bits_share_one_that_stays(
    db: Database, conn: psycopg.Connection, relay: Relay, bits: Callable[[], int]
) -> None:
    conn.execute("select pg_advisory_lock(7215605, n) from generate_series(0, 61) n")
    other = Relay(db)
    assert (relay.ring(), other.ring()) == (SHARED, SHARED)
    relay.rest()
    assert bits() == 1 << SHARED
    other.fall_asleep()
    db.connect().execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    assert other.heard() == 1
    conn.execute("select pg_advisory_unlock_all()")
    other.die()
    relay.die()
    assert Relay(db).ring() == 0
    assert bits() == 1


def test_who_is_in_the_way_is_not_waited_for(
    db: Database, conn: psycopg.Connection, relay: Relay
) -> None:
    ask = "select sync.gateway_bell(true)"
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(7215605, 63)")
        assert value(relay.keeper, ask) is None
    conn.execute("select pg_advisory_lock(7215605, n) from generate_series(0, 62) n")
    assert value(relay.keeper, ask) is None
    conn.execute("select pg_advisory_unlock_all()")
    assert value(relay.keeper, ask) == 0


def test_bell_that_lost_its_value_rings(
    conn: psycopg.Connection, relay: Relay, bits: Callable[[], int]
) -> None:
    """A restore of the schema without sequences, for one."""
    relay.ring()
    conn.execute("alter sequence sync_internal.bell restart")
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    assert relay.heard() == 1
    relay.rest()
    conn.execute("update tasks set title = 'y' where id = %s", (TASK_1,))
    assert (relay.heard(), bits()) == (0, 0)


def test_sleeper_whose_bit_was_cleared_learns_it_at_the_next_look(
    conn: psycopg.Connection, relay: Relay
) -> None:
    relay.fall_asleep()
    conn.execute("select setval('sync_internal.bell', 0)")
    assert relay.read() == (0, False)


# Who may


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "rowcast_worker"])
def test_nobody_but_the_gateway_may_touch_the_bell(conn: psycopg.Connection, role: str) -> None:
    for statement in (
        "select last_value from sync_internal.bell",
        "select nextval('sync_internal.bell')",
        "select setval('sync_internal.bell', 0)",
        "select sync.gateway_bell(true)",
        "select sync.gateway_fence()",
        "select sync_internal.bell_bits()",
    ):
        with conn.transaction(force_rollback=True):
            conn.execute(f"set local role {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_writer_of_any_role_rings(conn: psycopg.Connection, relay: Relay) -> None:
    relay.fall_asleep()
    with conn.transaction():
        conn.execute("set local role authenticated")
        conn.execute("select sync.act_as('00000000-0000-7000-8000-00000000a11c')")
        done = conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
        assert done.rowcount == 1
    assert relay.heard() == 1
