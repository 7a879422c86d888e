"""One state of the database for a whole answer: everything that one operation asks is read from the same snapshot.

Opened by the first question, closed when the operation ends. Totals, pages, remainders and series of one answer
therefore agree with each other, whatever is written meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from typing import Any, Final, Self

import msgspec

from metering.errors import DatabaseUnavailableError, MeteringError
from metering.reach import EVERYTHING, Reach
from metering.store.faults import translated
from metering.store.held import check_held
from metering.store.pool import SILENCE_FACTOR, Connection, Database
from metering.store.queries import sql
from metering.store.rollup_tables import rollups_of


class Horizon(msgspec.Struct, frozen=True):
    """Where the rollups stand in a snapshot."""

    # Everything that was committed before this instant is in the snapshot.
    as_of: datetime
    # Every quarter of an hour below it is rolled up, and from there every minute below `tail_at`.
    complete_at: datetime
    tail_at: datetime
    # Some of these quarters of an hour got events since; events of some of these minutes were corrected; and events came too
    # late to be in these.
    has_pending: bool
    has_pending_minutes: bool
    has_late: bool
    # Every event from this instant on is there, and every rollup row from that one on.
    raw_from: datetime
    rollups_from: datetime


class Snapshot:
    """A read-only transaction that opens when it is first asked. Questions take turns: a transaction has one connection.

    What lies beyond its reach is not there: every reader holds its statement to it, and one that does not is not run.
    """

    def __init__(self, database: Database, reach: Reach = EVERYTHING) -> None:
        self.reach: Final = reach
        self._database = database
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._open: tuple[Connection, Horizon] | None = None
        self._failure: MeteringError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()
        self._open = None

    @property
    def rollups_agree(self) -> bool:
        """Whether every rollup has what any other one has of the same events."""
        return rollups_of(self._database).agree

    async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
        """The rows that a statement answers in this snapshot; `hashed` when whatever it joins is large."""
        check_held(statement, self.reach)
        async with self._turn:
            with self._translated():
                connection, _ = await self._opened()
                silence_seconds_max = SILENCE_FACTOR * self._database.statement_seconds_max
                if not hashed:
                    return list(await connection.fetch(statement, *arguments, timeout=silence_seconds_max))
                await connection.execute("SET LOCAL enable_nestloop = off")
                rows = await connection.fetch(statement, *arguments, timeout=silence_seconds_max)
                await connection.execute("SET LOCAL enable_nestloop = on")
                return list(rows)

    async def stream(
        self, statement: str, arguments: Sequence[object], rows_held_max: int
    ) -> AsyncGenerator[Sequence[Any], None]:
        """The same, so many rows at a time: no more of them are held here, however many there are.

        It is our turn until the rows are through: close it where they are not wanted to the end.
        """
        check_held(statement, self.reach)
        async with self._turn:
            with self._translated():
                connection, _ = await self._opened()
                cursor = await connection.cursor(statement, *arguments)
            while True:
                with self._translated():
                    rows = await cursor.fetch(rows_held_max)
                if not rows:
                    return
                yield rows

    async def horizon(self) -> Horizon:
        """Where the rollups stand."""
        async with self._turn:
            with self._translated():
                _, horizon = await self._opened()
                return horizon

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The transaction outlives each call, so what the driver says is translated here; and after it failed once, it is
        over: every later question has the same answer.
        """
        if self._failure is not None:
            raise self._failure
        try:
            with translated(self._database.statement_seconds_max):
                yield
        except MeteringError as error:
            self._failure = error
            if isinstance(error, DatabaseUnavailableError) and self._open is not None:
                # Where nothing was heard in time, nothing will be of the transaction's end.
                self._open[0].terminate()
            raise

    async def _opened(self) -> tuple[Connection, Horizon]:
        if self._open is None:
            connection = await self._stack.enter_async_context(self._database.snapshot())
            row = await connection.fetchrow(sql("rollups.read_horizon"))
            assert row is not None, "the first migration puts one row there"
            self._open = connection, Horizon(**{name: row[name] for name in Horizon.__struct_fields__})
        return self._open
