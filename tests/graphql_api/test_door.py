"""Who asks and changes is let in so many at a time: the rest of the pool is for events, probes and keys."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, Final

import asyncpg
import httpx2
import pytest

from metering.errors import DoorFullError
from metering.limits import Limits
from metering.store.door import Door
from tests.conftest import ADMIN_KEY, Api, bearer, lock_waiters, running, usage_event

POOL: Final = 6
WAITING: Final = 3
LIMITS: Final = Limits(connections_kept=4, door_waiting_max=WAITING)
INSIDE: Final = POOL - LIMITS.connections_kept
# Of a table that only questions read.
METERS: Final = "{ meters { nodes { key } } }"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    """The service, over a small pool."""
    with running(database_url, LIMITS, pool_connections=POOL) as started:
        yield started


async def held(url: str, work: Any) -> None:
    """Do work in a thread while nobody can read meters."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE meter IN ACCESS EXCLUSIVE MODE")
            await asyncio.to_thread(work)
    finally:
        await connection.close()


def test_questions_that_take_long_hold_up_nothing_else(api: Api, database_url: str) -> None:
    """While all who were let in are stuck, and as many wait as may, one more is refused with 503 and DOOR_FULL; events are
    taken, and probes answered. Then everybody who was let in or waited has an answer.
    """

    def ask(_: int) -> httpx2.Response:
        return api.client.post("/graphql", json={"query": METERS}, headers=bearer(ADMIN_KEY))

    with ThreadPoolExecutor(INSIDE + WAITING + 2) as pool:
        asked = []

        def work() -> None:
            asked.extend(pool.submit(ask, number) for number in range(INSIDE + WAITING + 2))
            # When two are refused, the others are inside, or wait.
            for refused in (each.result() for each in islice(as_completed(asked), 2)):
                (error,) = refused.json()["errors"]
                assert (503, "DOOR_FULL") == (refused.status_code, error["extensions"]["code"])
                assert "1" == refused.headers["retry-after"]
            asyncio.run(lock_waiters(database_url, INSIDE))
            assert 1 == api.send([usage_event()])["accepted"]
            assert [200, 200] == [api.client.get(path).status_code for path in ("/livez", "/readyz")]
            assert {"service": {"status": "PASS"}} == api.ask("{ service { status } }")
            assert 2 == sum(each.done() for each in asked)

        asyncio.run(held(database_url, work))
        answers = [each.result().json() for each in asked]

    assert INSIDE + WAITING == sum("errors" not in answer for answer in answers)


def run(door: Door, waiting: int) -> list[str]:
    """What becomes of everybody at a door: of two who are inside, of so many who come then, and of one when it is free."""

    async def come(told: list[str], name: str) -> None:
        try:
            async with door.let_in():
                told.append(name)
        except DoorFullError as error:
            told.append(f"{name} refused: {error}")

    async def everybody() -> list[str]:
        told: list[str] = []
        async with AsyncExitStack() as inside:
            for _ in range(2):
                await inside.enter_async_context(door.let_in())
            coming = [asyncio.create_task(come(told, f"{number}")) for number in range(waiting)]
            # One who gives up waiting makes room for another.
            await asyncio.sleep(0)
            coming[0].cancel()
            await asyncio.wait(coming[:1])
            coming.append(asyncio.create_task(come(told, "last")))
            await asyncio.sleep(0)
        await asyncio.wait(coming)
        await come(told, "after")
        return told

    return asyncio.run(everybody())


def test_who_waits_is_let_in_in_turn() -> None:
    """In the order in which they came, but for who went; one more than may wait is refused at once."""
    door = Door(6, Limits(connections_kept=4, door_waiting_max=3))
    refused = "2 operations are at work on the database here, and 3 wait; ask again in a moment, or for less."

    assert [f"3 refused: {refused}", "1", "2", "last", "after"] == run(door, 4)


def test_nobody_waits_for_ever() -> None:
    """Who has waited as long as one may is refused; the place is not lost."""
    door = Door(6, Limits(connections_kept=4, door_seconds_max=0))
    told = run(door, 2)

    assert ["1 refused", "last refused", "after"] == [each.partition(":")[0] for each in told]


@pytest.mark.parametrize(("pool_connections", "inside"), [(4, 2), (5, 2), (6, 2), (10, 6), (200, 196)])
def test_a_small_pool_lets_two_in(pool_connections: int, inside: int) -> None:
    """Of a pool of any size that can be set, two at least are let in, and the writers have theirs."""
    door = Door(pool_connections, Limits(door_seconds_max=0))

    async def count() -> int:
        async with AsyncExitStack() as stack:
            for number in range(pool_connections):
                try:
                    await stack.enter_async_context(door.let_in())
                except DoorFullError:
                    return number
        raise AssertionError("everybody was let in")

    assert inside == asyncio.run(count())
    assert inside + Limits().writers <= pool_connections
