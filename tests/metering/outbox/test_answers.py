"""What an answer says: of the address that it came from, and of all that waits there; and what is late, and what only waits."""

import asyncio
from datetime import timedelta
from typing import Final

import pytest

from metering.lead import LEAD_LOCK
from metering.loops import read_loops
from metering.outbox.deliveries import DeliveryState
from metering.outbox.schedule import ATTEMPTS_MAX
from metering.probes import read_readiness
from metering.store.pool import Database
from metering.store.queries import sql
from tests.metering.catalog import play, rows
from tests.metering.outbox.posting import posting
from tests.metering.outbox.receiver import OK, Received, answer, receiving

LATE: Final = [
    (answer(410), 0, True),
    (answer(500), ATTEMPTS_MAX - 1, True),
    (OK, 0, True),
    (answer(500), ATTEMPTS_MAX - 1, False),
]
ASKED_SECONDS: Final = 7_000


class Holding:
    """Keeps the first request waiting until it is told to answer, and takes all others."""

    def __init__(self, late: str) -> None:
        self.arrived, self.released = asyncio.Event(), asyncio.Event()
        self._late = late

    async def __call__(self, _received: Received) -> str:
        """Answer."""
        if self.arrived.is_set():
            return OK
        self.arrived.set()
        await self.released.wait()
        return self._late


def test_a_late_answer_says_nothing_of_what_was_put_meanwhile(database_url: str) -> None:
    """A destination is put while a request to it is under way, with another address or to begin anew: whatever is answered then,
    that it is gone, that the last attempt failed, or (at another address) that it was taken, the attempt is on record, what waits
    is sent where it goes now, and nothing is given up.
    """

    async def scenario(database: Database) -> None:
        async with posting(database) as post:
            for place, (late, attempts, moves) in enumerate(LATE):
                holding = Holding(late)
                async with receiving(holding) as before, receiving() as after:
                    await post.put("hook", before.url)
                    await post.publish(f"account/a{place}")
                    await rows(database, f"UPDATE delivery SET attempts = {attempts} WHERE state = 'PENDING'")
                    sending = asyncio.create_task(post.dispatcher.run())
                    await holding.arrived.wait()
                    await post.put("hook", after.url if moves else None)
                    holding.released.set()
                    assert await sending

                    delivery = (await post.log("hook"))[-1]
                    assert DeliveryState.DELIVERED is delivery.state, place
                    assert [int(late.split()[1]), 204] == [each.status for each in delivery.attempts]
                    assert (1, 1) if moves else (2, 0) == (len(before.received), len(after.received))
                    assert (await post.state("hook")).disabled_at is None

    play(database_url, scenario)


@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_to_be_left_alone_is_sent_nothing(database_url: str, status: int) -> None:
    """Until the time that Retry-After says nothing is sent there, whatever subject it is of, and no attempt is lost by it; others
    are sent to meanwhile. Put again, it is sent to at once.
    """
    busy = answer(status, **{"Retry-After": f"{ASKED_SECONDS}"})
    moods = iter([busy, OK, OK, OK, OK, busy])

    async def moody(_received: Received) -> str:
        return next(moods, OK)

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving(moody) as receiver, receiving() as other:
            await post.put("hook", receiver.url)
            await post.put("other", other.url)
            begun = post.clock.now
            await post.publish("account/a0")
            assert await post.dispatcher.run()
            for number in range(1, 4):
                await post.publish(f"account/a{number}")
            assert await post.dispatcher.run()
            assert (1, 4) == (len(receiver.received), len(other.received))
            assert [ASKED_SECONDS] == await post.deliver_all("hook")

            log = await post.log("hook")
            assert [2, 1, 1, 1] == [len(each.attempts) for each in log]
            first, *later = sorted(attempt.attempted_at for each in log for attempt in each.attempts)
            assert begun == first
            assert {begun + timedelta(seconds=ASKED_SECONDS)} == set(later)

            await post.publish("account/a4")
            assert await post.dispatcher.run()
            await post.put("hook", None)
            assert await post.dispatcher.run()
            assert DeliveryState.DELIVERED is (await post.log("hook"))[-1].state

    play(database_url, scenario)


def test_what_waits_for_its_turn_is_not_late(database_url: str) -> None:
    """What is due and was not sent is late, in the gauge, the list of loops and the check alike; what waits behind a notification
    of its subject that is tried again later, or for a destination that asked for it, is not.
    """
    moods = iter([answer(500)])

    async def moody(_received: Received) -> str:
        return next(moods, answer(429, **{"Retry-After": f"{ASKED_SECONDS}"}))

    async def scenario(database: Database) -> None:
        async with posting(database) as post, receiving(moody) as receiver:
            await post.put("hook", receiver.url)
            now = post.clock.now
            # So it has run, and the list of loops tells of it.
            assert await post.dispatcher.run()
            post.clock.now = now - timedelta(hours=1)
            for _ in range(3):
                await post.publish()
            assert all(lag >= timedelta(hours=1) for lag in await _lags(database))
            post.clock.now = now
            # The next attempt is hours away.
            await rows(database, "UPDATE delivery SET attempts = 3")
            assert await post.dispatcher.run()
            assert {timedelta()} == set(await _lags(database))
            await post.publish("account/other")
            assert await post.dispatcher.run()
            post.clock.now = now - timedelta(hours=1)
            await post.publish("account/another")
            assert {timedelta()} == set(await _lags(database))

    play(database_url, scenario)


async def _lags(database: Database) -> list[timedelta]:
    """How far behind deliveries are: by the gauge, by the list of loops, and by the check, which shows it in seconds."""
    async with database.connection() as connection:
        gauges = await connection.fetchrow(sql("probes.read_gauges"), LEAD_LOCK)
    assert gauges is not None
    (loop,) = [each for each in await read_loops(database) if each.name == "deliveries"]
    (check,) = [each for each in (await read_readiness(database)).checks if each.name == "notifications"]
    assert loop.lag is not None
    _, is_late, seconds = check.detail.partition("what is due waits for ")
    shown = timedelta(seconds=int(seconds.split()[0].replace(",", ""))) if is_late else timedelta()
    return [gauges["delivery_lag"], loop.lag, shown]
