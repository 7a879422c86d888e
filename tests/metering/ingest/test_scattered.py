"""Events of very many weeks at once: they fit a server that has room for the locks of a few weeks."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest

from metering.events import UsageEvent
from metering.ingest.admit import Admission, admit
from metering.ingest.bodies import PlainEvents
from metering.ingest.receipts import Code, Receipt, Rejection
from metering.ingest.refusals import Refusals
from metering.ingest.write import Submission, in_parts, in_runs, put_together
from metering.limits import Limits
from metering.store import migrate
from metering.store.embedded import EmbeddedServer
from tests.acceptance.processes import server_like
from tests.conftest import QUICK_SETTINGS, Server, usage_event
from tests.metering.ingest.in_process import Answer, in_process

# A Monday, long ago: nothing is there of these weeks.
FIRST: Final = datetime(1990, 1, 1, 12, tzinfo=UTC)
# A tenth of what one transaction writes otherwise, and one writer, in what others leave of the server's room for locks.
LIMITS: Final = Limits(batch_weeks_max=10, writers=1)
ROOM_LOCKS: Final = 450
# Partitions and indexes of so many weeks have more locks together than there is room for.
WEEKS: Final = 120
# More than one transaction writes.
MORE: Final = 3 * LIMITS.batch_weeks_max
FILL: Final = "SELECT count(pg_advisory_lock(number)) FROM generate_series(1, 10_000_000) number"
LEAVE: Final = f"SELECT count(pg_advisory_unlock(number)) FROM generate_series(1, {ROOM_LOCKS}) number"


def of_weeks(first: int, weeks: Sequence[int], **fields: Any) -> list[dict[str, Any]]:
    """Events from this number on, one in each of these weeks, counted from the first."""
    return [
        usage_event(number, occurred_at=(FIRST + timedelta(weeks=week)).isoformat(), **fields)
        for number, week in enumerate(weeks, first)
    ]


def shuffled(count: int) -> list[int]:
    """The weeks up to this one, in an order of chance, each of them twice."""
    weeks = [*range(count), *range(count)]
    random.Random(20_261_122).shuffle(weeks)
    return weeks


# ---------------------------------------------------------------- cutting, and putting together


def submission(weeks: Sequence[int], *refused: int) -> Submission:
    """A submission with an event in each of these weeks, and with these indexes refused."""
    events = [msgspec.convert(each, UsageEvent) for each in of_weeks(0, weeks)]
    admitted, _ = admit(events, Admission(limits=LIMITS, now=datetime.now(UTC), restamp_window=timedelta(hours=1)))
    rejected = [Rejection(index, Code.MALFORMED, "No.") for index in refused]
    origin = Refusals("test", PlainEvents(events))
    return Submission(admitted=admitted, rejected=rejected, received_at=FIRST, origin=origin)


@pytest.mark.parametrize(
    ("weeks", "parts"),
    [
        ([0], [[0]]),
        ([0, 1, 0, 1, 0], [[0, 1, 2, 3, 4]]),
        ([0, 1, 2, 0], [[0, 1], [2, 3]]),
        ([0, 1, 2, 3, 2, 4], [[0, 1], [2, 3, 4], [5]]),
        ([4, 3, 2, 1, 0], [[0, 1], [2, 3], [4]]),
    ],
)
def test_cut_in_order(weeks: list[int], parts: list[list[int]]) -> None:
    """No part has more weeks than it may, the order stays, and what was refused before is in the first part only."""
    cut = in_parts(submission(weeks, 90, 91), 2)

    assert parts == [[index for index, _ in part.admitted] for part in cut]
    assert [2] + [0] * (len(cut) - 1) == [len(part.rejected) for part in cut]


@pytest.mark.parametrize(
    ("weeks", "runs"),
    [
        ([], []),
        (["abc"], [["abc"]]),
        (["a", "b", "ab", "c"], [["a", "b", "ab"], ["c"]]),
        (["abc", "a", "b"], [["abc"], ["a", "b"]]),
        (["a", "bc", "c", ""], [["a"], ["bc", "c", ""]]),
    ],
)
def test_requests_are_written_so_many_at_a_time(weeks: list[str], runs: list[list[str]]) -> None:
    """In their order, of no more weeks together than two; one of more is by itself."""
    letters = [{date(2026, 1, ord(letter) - ord("a") + 1) for letter in each} for each in weeks]

    assert [[letters[weeks.index(each)] for each in run] for run in runs] == in_runs(letters, lambda each: each, 2)


def test_put_together_again() -> None:
    """The receipt of all is the sum of the parts' receipts, with what was refused in the order of the request."""
    early, late = Rejection(1, Code.MALFORMED, "No."), Rejection(7, Code.MALFORMED, "No.")

    assert Receipt(5, 3, (early, late)) == put_together([Receipt(2, 3, (late,)), Receipt(3, 0, (early,))])


# ---------------------------------------------------------------- on a server with little room


@pytest.fixture
def server(servers: dict[str, Server], engine: str, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, with as much room for locks as PostgreSQL gives unless told otherwise."""
    settings = {"max_locks_per_transaction": "64", "fsync": QUICK_SETTINGS["fsync"]}
    with server_like(servers[engine], tmp_path / "server", **settings) as made:
        migrate.upgrade(made.url())
        yield made


@asynccontextmanager
async def crowded(database_url: str) -> AsyncIterator[None]:
    """Somebody else holds locks until the server has room for so many more, and no more than that."""
    connection = await asyncpg.connect(database_url)
    try:
        with pytest.raises(asyncpg.OutOfMemoryError):
            await connection.execute(FILL)
        await connection.execute(LEAVE)
        yield
    finally:
        await connection.close()


def test_very_many_weeks_at_once_are_taken(server: EmbeddedServer) -> None:
    """A request of many weeks, and many requests of a week each, are taken where there is room for the locks of a few weeks."""
    scattered = of_weeks(0, shuffled(WEEKS))
    alone = [of_weeks(10_000 + week, [week]) for week in range(MORE)]
    bad = [*of_weeks(20_000, shuffled(MORE)), {"colour": "blue"}]

    async def scenario() -> tuple[list[Answer], Answer, Answer]:
        async with in_process(server.url(), LIMITS, pool_connections=4) as service, crowded(server.url()):

            async def post(events: object) -> Answer:
                return await service.post(msgspec.json.encode(events))

            beside = [post(each) for each in (scattered, *alone, [usage_event(30_000)])]
            return await asyncio.gather(*beside), await post(bad), await post(scattered)

    answers, mixed, again = asyncio.run(scenario())

    accepted = [2 * WEEKS, *[1] * len(alone), 1]
    assert [{"accepted": count, "duplicates": 0, "rejected": []} for count in accepted] == [
        each.json for each in answers
    ]
    assert {"accepted": 0, "duplicates": 2 * WEEKS, "rejected": []} == again.json
    assert 2 * MORE == mixed.json["accepted"]
    assert [(2 * MORE, "unknown_field")] == [(each["index"], each["code"]) for each in mixed.json["rejected"]]
