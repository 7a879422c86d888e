"""Events of very many weeks at once: they fit a server that has no more room for locks than PostgreSQL gives by default."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
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
from metering.ingest.write import Submission, in_parts, put_together
from metering.limits import LIMITS
from metering.store import migrate
from metering.store.embedded import EmbeddedServer
from tests.acceptance.processes import server_like
from tests.conftest import QUICK_SETTINGS, Server, usage_event
from tests.metering.ingest.in_process import Answer, in_process

# A Monday, long ago: nothing is there of these weeks.
FIRST: Final = datetime(1990, 1, 1, 12, tzinfo=UTC)
# More than the room that the server below has for locks, at a lock for each partition and each of its indexes.
WEEKS: Final = 350
# The default for each connection, and hardly a process besides: 64 locks for some 25 processes.
CROWDED: Final = {
    "max_locks_per_transaction": "64",
    "max_connections": "20",
    "autovacuum_worker_slots": "1",
    "autovacuum_max_workers": "1",
    "max_wal_senders": "0",
    "max_worker_processes": "1",
}


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


def test_put_together_again() -> None:
    """The receipt of all is the sum of the parts' receipts, with what was refused in the order of the request."""
    early, late = Rejection(1, Code.MALFORMED, "No."), Rejection(7, Code.MALFORMED, "No.")

    assert Receipt(5, 3, (early, late)) == put_together([Receipt(2, 3, (late,)), Receipt(3, 0, (early,))])


# ---------------------------------------------------------------- on a server with the default


@pytest.fixture
def crowded(servers: dict[str, Server], engine: str, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own that has little room for locks."""
    settings = {**CROWDED, "fsync": QUICK_SETTINGS["fsync"]}
    with server_like(servers[engine], tmp_path / "server", **settings) as server:
        migrate.upgrade(server.url())
        yield server


def test_very_many_weeks_at_once_are_taken(crowded: EmbeddedServer) -> None:
    """A request of hundreds of weeks, and hundreds of requests of a week each, are taken, and so is one beside them."""
    scattered = of_weeks(0, shuffled(WEEKS))
    alone = [of_weeks(10_000 + week, [week]) for week in range(2 * LIMITS.batch_weeks_max)]
    bad = [*of_weeks(20_000, shuffled(2 * LIMITS.batch_weeks_max)), {"colour": "blue"}]

    async def scenario() -> tuple[list[Answer], Answer, Answer, int]:
        url = crowded.url()
        async with in_process(url, pool_connections=4) as service:

            async def post(events: object) -> Answer:
                return await service.post(msgspec.json.encode(events))

            beside = [post(each) for each in (scattered, *alone, [usage_event(30_000)])]
            answers = await asyncio.gather(*beside)
            mixed, again = await post(bad), await post(scattered)
        connection = await asyncpg.connect(url)
        try:
            return answers, mixed, again, await connection.fetchval("SELECT count(*) FROM rejected_event")
        finally:
            await connection.close()

    answers, mixed, again, kept = asyncio.run(scenario())

    accepted = [2 * WEEKS, *[1] * len(alone), 1]
    assert [{"accepted": count, "duplicates": 0, "rejected": []} for count in accepted] == [
        each.json for each in answers
    ]
    assert {"accepted": 0, "duplicates": 2 * WEEKS, "rejected": []} == again.json
    assert 4 * LIMITS.batch_weeks_max == mixed.json["accepted"]
    assert [(4 * LIMITS.batch_weeks_max, "unknown_field")] == [
        (each["index"], each["code"]) for each in mixed.json["rejected"]
    ]
    assert 1 == kept
