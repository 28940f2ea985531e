"""A whole installation of a test's own: PostgreSQL that keeps what it commits, gateways that are
processes, and a proxy on every way between clients, gateways and database.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import jwt
import psycopg
from psycopg.rows import TupleRow, dict_row, tuple_row

from app import embedded, migrate, serve
from tests.faults.proxy import Proxy, tcp, unix

SECRET = "a secret for tests only, long enough for HS256"
HEARTBEAT_SECONDS = 1.0
POOL_SIZE = 4
RECOVERY_SECONDS = 30.0
LOOK_SECONDS = 0.1


def token(user: str) -> str:
    """A token that outlasts any run."""
    claims = {"sub": user, "role": "authenticated", "exp": time.time() + 86400}
    return jwt.encode(claims, SECRET, algorithm="HS256")


class World:
    """PostgreSQL in `home` with fsync on, the example apps, and so many gateways.

    Clients reach gateway n at `ports[n]`, through `client_proxies[n]`; the gateways reach
    PostgreSQL through `database_proxy`. `sql` goes around the proxies, as a superuser.
    """

    def __init__(self, home: Path, gateways: int = 1, postgres_bin: Path | None = None) -> None:
        self._home = home
        self._postgres_bin = postgres_bin
        self._count = gateways
        self._stack = AsyncExitStack()
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._one_at_a_time = asyncio.Lock()
        self.server = embedded.Server(home, postgres_bin)
        self.gateways: list[serve.Gateway] = []
        self.client_proxies: list[Proxy] = []
        self.database_proxy = Proxy(unix(self._postgres_socket))

    async def __aenter__(self) -> Self:
        try:
            self._start_postgres()
            await self._stack.enter_async_context(self.database_proxy)
            for _ in range(self._count):
                await self._start_gateway()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()
        for gateway in self.gateways:
            await asyncio.to_thread(gateway.stop, 5)
        await self._stack.aclose()
        self.server.stop()

    def _start_postgres(self) -> None:
        """On Linux the server ends with the thread that started it: this one, which waits."""
        self.server.start()
        admin = self.server.dsn(database="postgres")
        with psycopg.connect(admin, autocommit=True) as conn:
            # When a revocation took effect is known exactly by the time of its commit.
            conn.execute("alter system set track_commit_timestamp = on")
        self.server.stop()
        self.server = embedded.Server(self._home, self._postgres_bin)
        self.server.start()
        migrate.create_database(self.server.dsn(database="postgres"), embedded.DATABASE)
        migrate.migrate(self.server.dsn(), examples=True)

    async def _start_gateway(self) -> None:
        listener = serve.listen("127.0.0.1", 0)
        self._stack.callback(listener.close)
        dsn = (
            f"host=127.0.0.1 port={self.database_proxy.port} user=rowcast_gateway "
            f"dbname={embedded.DATABASE} sslmode=disable gssencmode=disable"
        )
        gateway = serve.Gateway(
            listener,
            {
                "ROWCAST_DATABASE_URL": dsn,
                "ROWCAST_ENV": "development",
                "ROWCAST_JWT_SECRET": SECRET,
                "ROWCAST_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
                "ROWCAST_POOL_SIZE": str(POOL_SIZE),
                "ROWCAST_LOG_LEVEL": "error",
            },
        )
        self.gateways.append(gateway)
        await asyncio.to_thread(gateway.start)
        threading.Thread(target=gateway.watch, name="gateway-watch", daemon=True).start()
        proxy = Proxy(tcp(listener.getsockname()[1]))
        self.client_proxies.append(await self._stack.enter_async_context(proxy))

    @property
    def ports(self) -> list[int]:
        """Where clients connect, one port a gateway."""
        return [proxy.port for proxy in self.client_proxies]

    @property
    def proxies(self) -> list[Proxy]:
        return [*self.client_proxies, self.database_proxy]

    def _postgres_socket(self) -> str:
        return f"{(self._home / 'sockets').resolve()}/.s.PGSQL.5432"

    # --- ends that nobody asked for --------------------------------------------------------------

    def kill_gateway(self, number: int) -> None:
        """kill -9; its supervisor starts it again."""
        child = self.gateways[number]._child
        if child is not None and child.poll() is None:
            child.kill()

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster; its watcher starts it again, and it recovers from its log."""
        running = embedded.read_pid_file(self.server.data)
        if running is not None and running.is_running:
            os.kill(running.pid, signal.SIGKILL)

    async def kill_backend(self) -> None:
        """kill -9 of one backend: PostgreSQL ends all the others and recovers."""
        rows = await self.sql(
            "select pid from pg_stat_activity where usename = 'rowcast_gateway' limit 1"
        )
        if rows:
            os.kill(rows[0]["pid"], signal.SIGKILL)

    # --- the database ----------------------------------------------------------------------------

    async def sql(
        self, statement: str, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]] | None:
        """One committed statement as superuser. None where it failed or its outcome is unknown."""
        async with self._one_at_a_time:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await self.connect()
                cursor = await self._connection.cursor(row_factory=dict_row).execute(
                    statement.encode(), parameters or None
                )
                return await cursor.fetchall() if cursor.description else []
            except psycopg.Error:
                return None

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The same, where it must succeed: again while PostgreSQL still recovers from a kill, which
        it may notice only after everybody was served. Once there are faults, reads alone do.
        """
        until = time.monotonic() + RECOVERY_SECONDS
        while (rows := await self.sql(statement, parameters)) is None:
            assert time.monotonic() < until, f"failed: {statement[:300]}"
            await asyncio.sleep(LOOK_SECONDS)
        return rows

    async def connect(self) -> psycopg.AsyncConnection[TupleRow]:
        """A superuser's connection of its own, around the proxies."""
        return await psycopg.AsyncConnection.connect(
            self.server.dsn(), autocommit=True, connect_timeout=3, row_factory=tuple_row
        )

    def heal(self) -> None:
        """From now on everything passes that is made anew."""
        for proxy in self.proxies:
            proxy.heal()
