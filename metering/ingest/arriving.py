"""Bodies that are arriving or wait to be written: how long one may take to arrive, and how much memory all of them may take.

A body that comes a byte a second holds what has arrived of it, until its time is over, and what is there is held until it is
answered; however many of them one sender begins, there is room for the others: no sender may hold more than is still free.
"""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

from metering.errors import BodiesFullError, BodyError
from metering.limits import Limits


class Bodies:
    """All bodies of this process that are arriving, or are not answered yet."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Bytes by sender, for as long as a body of theirs is not let go.
        self._held: Counter[str] = Counter()

    def arriving(self, sender: str) -> "Body":
        """A body of this sender, to be entered with its first byte and left when nothing of it is held any more.

        Raises BodyError in the block when the body has not arrived in time.
        """
        return Body(self, sender, self._limits.body_seconds_max)

    def hold(self, sender: str, count: int) -> None:
        """Count more bytes of a sender. Raises BodiesFullError when that would be more than is left for the others."""
        free = self._limits.bodies_bytes_max - self._held.total()
        # The end of a body comes as no bytes at all, and needs no room.
        if count and self._held[sender] + count > free:
            raise BodiesFullError(
                f"{self._held.total():,} bytes of bodies are arriving or wait to be written, {self._held[sender]:,} of them of "
                "this key; send this one again in a moment."
            )
        self._held[sender] += count

    def let_go(self, sender: str, count: int) -> None:
        """Count these bytes of a sender no longer."""
        self._held[sender] -= count
        if not self._held[sender]:
            del self._held[sender]


class Body:
    """One body that is arriving."""

    def __init__(self, bodies: Bodies, sender: str, seconds_max: int) -> None:
        self._bodies = bodies
        self._sender = sender
        self._seconds_max = seconds_max
        self._deadline = asyncio.timeout(seconds_max)
        self.held_bytes = 0

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._deadline.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of what has arrived. Raises BodyError when the time is over."""
        self._bodies.let_go(self._sender, self.held_bytes)
        try:
            await self._deadline.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            message = f"The body did not arrive within {self._seconds_max} seconds; send it faster, or less."
            raise BodyError(408, "body_too_slow", message) from late

    def add(self, count: int) -> None:
        """Count what has arrived, decompressed. Raises BodiesFullError when there is no room for it."""
        self._bodies.hold(self._sender, count)
        self.held_bytes += count

    def arrived(self) -> None:
        """All of it is there: what is done with it from now on does not count against its time."""
        self._deadline.reschedule(None)
