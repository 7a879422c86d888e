"""Ask once what several fields need: one statement serves all groups, or all events, of a page."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Once:
    """Runs each question of a page once, however many of its fields ask."""

    def __init__(self) -> None:
        self._asked: dict[object, asyncio.Future[Any]] = {}

    def know(self, key: object, answer: object) -> None:
        """What came along with another answer need not be asked any more."""
        self._asked[key] = future = asyncio.get_running_loop().create_future()
        future.set_result(answer)

    def known(self, key: object) -> Any:
        """The answer where it is there already; None where it is not."""
        future = self._asked.get(key)
        return future.result() if future is not None and future.done() else None

    async def ask(self, key: object, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to `question`, asked at most once for this key."""
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(question())
        answer: Answer = await self._asked[key]
        return answer
