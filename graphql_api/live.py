"""Live questions: how many may be open, how they take turns, and when they end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec

from metering.errors import LiveFullError
from metering.keys import Caller
from metering.limits import Limits
from metering.spans import begin


class Live:
    """All live questions of this process, and the connections that wait for their answers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._questions: Counter[str] = Counter()
        self._connections = 0
        self._turns = asyncio.Semaphore(limits.live_reads_max)
        self.stopping = asyncio.Event()

    @property
    def questions(self) -> int:
        """How many are open."""
        return self._questions.total()

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._connections

    @contextmanager
    def connection(self) -> Iterator[None]:
        """A connection that stays open. Raises LiveFullError when there are as many as may be."""
        if self._connections >= self._limits.live_connections_max:
            raise LiveFullError(f"{self._connections:,} connections are open here; try again later.")
        self._connections += 1
        try:
            yield
        finally:
            self._connections -= 1

    @contextmanager
    def question(self, sender: str) -> Iterator[None]:
        """A live question of a key. Raises LiveFullError when it, or everybody together, has as many as may be."""
        limits = self._limits
        if self._questions[sender] >= limits.live_questions_per_key_max:
            raise LiveFullError(f"This key has {self._questions[sender]:,} live questions open; end one of them.")
        if self.questions >= limits.live_questions_max:
            raise LiveFullError(f"{self.questions:,} live questions are open here; try again later.")
        self._questions[sender] += 1
        try:
            yield
        finally:
            self._questions[sender] -= 1
            if not self._questions[sender]:
                del self._questions[sender]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn to read: live questions leave most of the connections to the database to those who wait for an answer.

        Raises TimeoutError when reading takes longer than one operation may.
        """
        async with self._turns, asyncio.timeout(self._limits.graphql_seconds_max):
            with begin("live reading"):
                yield

    async def rest(self, seconds: float) -> bool:
        """Wait so long, or until the process stops; whether it goes on."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return not self.stopping.is_set()


class Asker(msgspec.Struct, frozen=True):
    """Who asks a live question: `again` looks the key up anew. It raises UnauthenticatedError when that is over."""

    live: Live
    again: Callable[[], Awaitable[Caller | None]]
