"""Work ahead: while what came of one page is kept, the next ones are read and calculated already.

What one page waits for, PostgreSQL or a processor, another one does not; one after the other, each of both would rest for as
long as the other works.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


async def work_ahead(work: Iterable[Callable[[], Coroutine[Any, Any, T]]], at_once: int) -> AsyncGenerator[T, None]:
    """What comes of each, in order; `at_once` of them are there at a time, from their begin to when the next one is asked for.

    Raises what one of them raises when it is its turn: what was before it has been handed over then. Those that are under way
    when this is closed are given up; close it where they are not wanted to the end.
    """
    assert at_once > 0, "one at a time at least"
    waiting = iter(work)
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            under_way.extend(asyncio.create_task(begin()) for begin in islice(waiting, at_once - len(under_way)))
            if not under_way:
                return
            yield await under_way[0]
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        # Until each has let go of what it holds. What they fail of, whoever does them again will meet.
        await asyncio.gather(*under_way, return_exceptions=True)
