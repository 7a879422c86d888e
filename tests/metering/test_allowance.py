"""The allowance of a key: a token bucket that is exact, however many processes spend it at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.allowance import Allowances
from metering.config import Settings
from metering.errors import RateLimitedError
from metering.keys import NO_LIMITS, ApiKey, KeyLimits, Scope
from metering.limits import LIMITS
from metering.standing import Standing
from metering.store.pool import Database
from metering.store.queries import sql
from tests.strategies import SOME

START = datetime(2026, 3, 15, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def key_of(prefix: str, rate: int | None, burst: int | None) -> ApiKey:
    """A key with this rate; allowances need no more than its prefix in the database."""
    return ApiKey(
        prefix=prefix,
        name="a test",
        scopes=frozenset({Scope.USAGE_WRITE}),
        accounts=None,
        created_at=START,
        expires_at=None,
        revoked_at=None,
        limits=NO_LIMITS if rate is None else KeyLimits(events_per_second_max=rate, burst_events_max=burst),
    )


@asynccontextmanager
async def databases(url: str, count: int) -> AsyncIterator[list[Database]]:
    """Several pools on one database, as several processes have them."""
    opened = [await Database.connect(Settings(database_url=url), LIMITS) for _ in range(count)]
    try:
        yield opened
    finally:
        for database in opened:
            await database.close()


async def spent(allowances: Allowances, key: ApiKey, events: int, at: datetime | None = None) -> Standing:
    """The standing after a request, whether it was taken or not."""
    try:
        standing = await allowances.spend(key, events, at)
    except RateLimitedError as error:
        return error.standing
    assert standing is not None
    return standing


class Model:
    """A token bucket in whole millionths of events, on a clock that may stand still or jump back."""

    def __init__(self, rate: int, burst: int, start: datetime = START) -> None:
        self.rate, self.burst = rate, burst
        self.millionths = burst * 10**6
        self.as_of = start

    def spend(self, events: int, at: datetime) -> tuple[bool, Decimal]:
        """Whether a request is taken, and what is left."""
        elapsed = max(0, (at - self.as_of) // MICROSECOND)
        self.millionths = min(self.burst * 10**6, self.millionths + self.rate * elapsed)
        self.as_of = max(self.as_of, at)
        taken = self.millionths >= min(events, self.burst) * 10**6
        if taken:
            self.millionths -= events * 10**6
        return taken, Decimal(self.millionths) / 10**6


RATES = st.one_of(st.integers(1, 20), st.sampled_from([997, 10**6, 10**9]))
BURSTS = st.one_of(st.integers(1, 50), st.sampled_from([9_999, 10**9]))
STEPS = st.one_of(
    st.integers(-2, 2).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(-3, 2_000_000).map(lambda micros: timedelta(microseconds=micros)),
    st.just(timedelta(days=3_650)),
)
REQUESTS = st.lists(st.tuples(STEPS, st.one_of(st.integers(0, 60), st.just(10_000))), min_size=1, max_size=12)


def test_it_is_a_token_bucket_to_the_millionth(database_url: str) -> None:
    """For any rate, burst and requests, on a clock that stops, runs and jumps, each answer is that of a plain model."""
    numbers = iter(range(10**6))
    with asyncio.Runner() as runner:
        database = runner.run(Database.connect(Settings(database_url=database_url), LIMITS))
        allowances = Allowances(database)

        @SOME
        @given(rate=RATES, burst=BURSTS, requests=REQUESTS)
        def holds(rate: int, burst: int, requests: Sequence[tuple[timedelta, int]]) -> None:
            key = key_of(f"key-{next(numbers)}", rate, burst)
            at = START
            # It is full when it is first asked for.
            model = Model(rate, burst, start := at + requests[0][0])
            total = largest = 0
            for step, events in requests:
                at += step
                standing = runner.run(spent(allowances, key, events, at))
                assert model.spend(events, at) == (standing.taken, standing.left_events)
                total += events if standing.taken else 0
                largest = max(largest, events)
            # What no requests can get past: the burst, or one request that was larger, and what came in meanwhile.
            elapsed = Decimal((model.as_of - start) // MICROSECOND) / 10**6
            assert total <= max(burst, largest) + rate * elapsed

        try:
            holds()
        finally:
            runner.run(database.close())


def test_two_processes_share_it_exactly(database_url: str) -> None:
    """Of 300 events that two pools ask for at one instant exactly the burst is taken, whoever comes first."""
    key = key_of("shared", 1, 100)

    async def scenario() -> list[Standing]:
        async with databases(database_url, 2) as opened:
            both = [Allowances(database) for database in opened]
            return await asyncio.gather(*(spent(both[number % 2], key, 1, START) for number in range(300)))

    answers = asyncio.run(scenario())

    assert 100 == sum(standing.taken for standing in answers)
    # Each of those taken saw another state: nobody overwrote what somebody else had taken.
    assert list(range(100)) == sorted(standing.left_events for standing in answers if standing.taken)


def test_at_the_same_time_never_more_than_the_rate(database_url: str) -> None:
    """On the database's own clock, with sixteen at once through two pools: at most the burst and what came in meanwhile."""
    key = key_of("limited", 400, 50)

    async def scenario() -> tuple[int, float]:
        async with databases(database_url, 2) as opened:
            both = [Allowances(database) for database in opened]
            taken = 0

            async def send(number: int) -> None:
                nonlocal taken
                for events in range(1, 41):
                    standing = await spent(both[number % 2], key, events)
                    taken += events if standing.taken else 0

            async with opened[0].connection() as connection:
                before = await connection.fetchval("SELECT clock_timestamp()")
                await asyncio.gather(*(send(number) for number in range(16)))
                after = await connection.fetchval("SELECT clock_timestamp()")
            return taken, (after - before).total_seconds()

    taken, seconds = asyncio.run(scenario())

    assert 50 < taken <= 50 + 400 * seconds


def test_a_request_larger_than_the_burst_is_taken_when_nothing_is_owed(database_url: str) -> None:
    """A full allowance lets any request through, and is then owed: until it has come in again, everything waits."""
    key = key_of("large", 10, 100)

    async def scenario() -> list[Standing]:
        async with databases(database_url, 1) as (database,):
            allowances = Allowances(database)
            moments = [(1_000, 0), (1, 0), (1, 90), (1_000, 99), (1, 91), (1_000, 200)]
            return [
                await spent(allowances, key, events, START + timedelta(seconds=seconds)) for events, seconds in moments
            ]

    answers = asyncio.run(scenario())

    assert [True, False, False, False, True, True] == [standing.taken for standing in answers]
    assert [-900, -900, 0, 90, 89, -900] == [standing.left_events for standing in answers]
    assert [91, 1, 1] == [answers[number].wait_seconds for number in (1, 2, 3)]


def test_a_refused_request_takes_nothing_out(database_url: str) -> None:
    """However often a request is refused, what the allowance holds goes on growing as if it had not been sent."""
    key = key_of("patient", 10, 100)

    async def scenario() -> list[Standing]:
        async with databases(database_url, 1) as (database,):
            allowances = Allowances(database)
            await spent(allowances, key, 100, START)
            return [await spent(allowances, key, 60, START + timedelta(seconds=second)) for second in range(1, 7)]

    answers = asyncio.run(scenario())

    assert [10, 20, 30, 40, 50, 0] == [standing.left_events for standing in answers]
    assert [5, 4, 3, 2, 1] == [standing.wait_seconds for standing in answers[:-1]]


def test_a_key_without_a_rate_pays_nothing(database_url: str) -> None:
    """The database is not asked for a key without a rate: it may even be closed."""

    async def scenario() -> Standing | None:
        async with databases(database_url, 1) as (database,):
            allowances = Allowances(database)
        return await allowances.spend(key_of("free", None, None), 10_000)

    assert asyncio.run(scenario()) is None


def test_nothing_waits_for_the_disk(database_url: str) -> None:
    """The statement does not wait for its commit to be on disk, and leaves its session as it was; the table has no log."""

    async def scenario() -> tuple[Any, ...]:
        async with databases(database_url, 1) as (database,), database.connection() as connection:
            async with connection.transaction():
                await connection.fetchrow(sql("allowances.spend"), "key", 1, 1, 1, None)
                inside = await connection.fetchval("SHOW synchronous_commit")
            return (
                inside,
                await connection.fetchval("SHOW synchronous_commit"),
                await connection.fetchval(
                    "SELECT relpersistence::text FROM pg_class WHERE oid = 'key_allowance'::regclass"
                ),
            )

    assert ("off", "on", "u") == asyncio.run(scenario())


@pytest.mark.parametrize(("rate", "burst"), [(10**9, 10**9), (1, 10**9), (10**9, 1)])
def test_the_largest_of_all_limits(database_url: str, rate: int, burst: int) -> None:
    """The largest rates and bursts are exact too, after a century without a request."""
    key = key_of("large", rate, burst)

    async def scenario() -> list[Standing]:
        async with databases(database_url, 1) as (database,):
            allowances = Allowances(database)
            later = START + timedelta(days=36_500)
            return [await spent(allowances, key, 10_000, at) for at in (START, later, later)]

    expected = Model(rate, burst)
    later = START + timedelta(days=36_500)
    answers = asyncio.run(scenario())

    assert [expected.spend(10_000, at) for at in (START, later, later)] == [
        (standing.taken, standing.left_events) for standing in answers
    ]
