"""Turns of the event loop: a long answer is made in several of them, so that whoever asks little is not kept waiting for it.

What answers are made of is at hand when they are made, and a process that makes ten thousand rows of one without a pause hears
of no probe and takes no event meanwhile.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

_SECONDS_MAX: Final = 0.005


class Turn:
    """How long this turn of the loop has been at work for answers, of all operations of a process together."""

    def __init__(self) -> None:
        self._began_at: float | None = None

    def is_over(self) -> bool:
        """Whether it is others' turn; the first who asks in a turn begins it."""
        now = time.perf_counter()
        if self._began_at is None:
            self._began_at = now
            # It runs in the next turn, before whoever pauses from now on.
            asyncio.get_running_loop().call_soon(self._end)
        return now - self._began_at > _SECONDS_MAX

    def _end(self) -> None:
        self._began_at = None


class Unhurried:
    """Items one by one, as an asynchronous iterator that pauses between two of them where the turn is over.

    Not where items wait for something themselves: what they wait for is read for all of them at once, if all ask in one turn.
    """

    def __init__(self, items: Sequence[Any], turn: Turn, waits: Callable[[], bool]) -> None:
        self._items = iter(items)
        self._turn = turn
        self._waits = waits
        self._has_begun = False

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Any:
        """The next one."""
        if self._has_begun and not self._waits() and self._turn.is_over():
            await asyncio.sleep(0)
        self._has_begun = True
        for item in self._items:
            return item
        raise StopAsyncIteration
