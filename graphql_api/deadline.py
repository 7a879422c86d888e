"""Work that somebody waits for: it has its time, and where nobody waits any more it is given up, its SQL cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from metering.errors import TimeLimitError

Done = TypeVar("Done")


async def within(seconds: int, work: Coroutine[Any, Any, Done], gone: Coroutine[Any, Any, None] | None = None) -> Done:
    """What the work makes. When this returns or raises, nothing of the work goes on.

    Raises TimeLimitError when its time is over, and ClientDisconnect when `gone` ends first.
    """
    doing = asyncio.ensure_future(work)
    going = None if gone is None else asyncio.ensure_future(gone)
    watched: list[asyncio.Future[Any]] = [doing] if going is None else [doing, going]
    try:
        await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if going is not None and going.done():
            going.result()
            raise ClientDisconnect
        raise TimeLimitError(f"The answer took longer than {seconds} s; ask for less, or for a shorter period.")
    finally:
        await given_up(*watched)


async def given_up(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what is not done, and wait until it is: a statement that is cancelled has ended then."""
    open_tasks = [task for task in tasks if not task.done()]
    for task in open_tasks:
        task.cancel()
    if open_tasks:
        await asyncio.wait(open_tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # else it would be complained of that nobody looked


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
