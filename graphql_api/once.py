"""Ask once what several fields need: one statement serves all groups, or all events, of a page."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Once:
    """Runs each question of a page once, however many of its fields ask."""

    def __init__(self) -> None:
        self._asked: dict[object, asyncio.Future[Any]] = {}

    async def ask(self, key: object, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to `question`, asked at most once for this key."""
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(question())
        answer: Answer = await self._asked[key]
        return answer
