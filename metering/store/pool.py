"""Connections: one pool for each process, with the codecs, timeouts and transactions that everything else relies on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Final, Self

import asyncpg
import msgspec

from metering.config import Settings
from metering.limits import Limits
from metering.store.door import Door
from metering.store.engine import Engine, engine_of
from metering.store.faults import translated
from metering.store.told_connection import ToldConnection
from metering.store.traced_connection import TracedConnection

# The driver waits so many times as long for PostgreSQL to say that a statement took too long.
SILENCE_FACTOR: Final = 2

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


class Database:
    """A pool of connections to the migrated database."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        engine: Engine,
        limits: Limits,
        door: Door | None = None,
        *,
        is_bounded_apart: bool = False,
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._door = door
        # By other limits than the pool's sessions were made with.
        self._is_bounded_apart = is_bounded_apart
        self.engine = engine

    @classmethod
    async def connect(cls, settings: Settings, limits: Limits) -> Self:
        """Open the pool. Raises DatabaseUnavailableError when there is nothing to connect to."""
        assert settings.database_url is not None, "the command line sets the embedded server's address"
        with translated():
            pool = await asyncpg.create_pool(
                settings.database_url,
                connection_class=ToldConnection if settings.traces_url is None else TracedConnection,
                min_size=1,
                max_size=settings.pool_connections,
                timeout=limits.database_connect_seconds_max,
                # A server that vanished without a word would be waited for for ever.
                command_timeout=SILENCE_FACTOR * limits.statement_seconds_max,
                # Statements are planned with their values: an account of 10 events and one of 10 million differ.
                server_settings={
                    "application_name": "metering",
                    "plan_cache_mode": "force_custom_plan",
                    "jit": "off",
                    # Room for the list of pending hours to be hashed while history is loaded.
                    "work_mem": "32MB",
                    "TimeZone": "UTC",
                    # The writers' protocol (docs/adr/0004) needs a new snapshot for each statement.
                    "default_transaction_isolation": "read committed",
                    # Of questions: what a snapshot begins with puts it in force (sql/rollups.sql).
                    "metering.statement_timeout": f"{limits.statement_seconds_max}s",
                },
                # The driver would reset every session on every release, a round trip: we change only what SET LOCAL does.
                reset=_keep,
            )
            async with pool.acquire() as connection:
                engine = await engine_of(connection)
        return cls(pool, engine, limits)

    def behind(self, door: Door) -> "Database":
        """The same pool for those who come through a door. Raises DoorFullError where a connection is asked for."""
        return Database(self._pool, self.engine, self._limits, door, is_bounded_apart=self._is_bounded_apart)

    def within(self, statement_seconds_max: int) -> "Database":
        """The same pool, with another bound for each statement of its snapshots."""
        limits = msgspec.structs.replace(self._limits, statement_seconds_max=statement_seconds_max)
        return Database(self._pool, self.engine, limits, self._door, is_bounded_apart=True)

    @property
    def connections(self) -> dict[str, int]:
        """How many connections there are now: `used` and `idle`; and `max`, how many there may be."""
        idle = self._pool.get_idle_size()
        return {"used": self._pool.get_size() - idle, "idle": idle, "max": self._pool.get_max_size()}

    async def close(self) -> None:
        """Close every connection; what was in flight is given up."""
        self._pool.terminate()

    def close_within(self, seconds: float) -> None:
        """Close every connection after so many seconds at the latest: nobody waits longer for a database that is silent."""
        asyncio.get_running_loop().call_later(seconds, self._pool.terminate)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside of a transaction."""
        with translated():
            async with (
                self._let_in(),
                self._pool.acquire(timeout=self._limits.database_connect_seconds_max) as connection,
            ):
                with _given_up_when_lost(connection):
                    yield connection

    def _let_in(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._door is None else self._door.let_in()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One unit of work: committed when the block ends, rolled back when it raises."""
        async with self.connection() as connection, connection.transaction():
            with _given_up_when_lost(connection):
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction in which every statement sees the same state of the database."""
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            if self._is_bounded_apart:
                await connection.execute(f"SET LOCAL metering.statement_timeout = '{self.statement_seconds_max}s'")
            yield connection

    @property
    def statement_seconds_max(self) -> int:
        """How long a statement of a snapshot may take."""
        return self._limits.statement_seconds_max


@contextmanager
def _given_up_when_lost(connection: Connection) -> Iterator[None]:
    """End a connection on which nothing was heard in time, or the driver lost its place in a conversation that broke off.

    Else it would say its ROLLBACK, and wait as long again, or complain of that instead. And one to a server that takes no
    changes: the next one may find the server that does.
    """
    try:
        yield
    except (TimeoutError, asyncpg.InternalClientError, asyncpg.ReadOnlySQLTransactionError):
        connection.terminate()
        raise


async def _keep(_connection: Any) -> None:
    """Leave a session as it is."""
