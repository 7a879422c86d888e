"""What a writer counts: what waits for it, and what it could not write."""

import asyncio

import pytest

from metering.errors import DatabaseUnavailableError
from metering.limits import LIMITS
from metering.metrics import COMMIT_SECONDS, UNWRITTEN, Labelled
from tests.conftest import ENGINES, Server
from tests.metering.ingest.test_fairness import clients


def test_a_batch_that_cannot_be_written_is_counted(servers: dict[str, Server]) -> None:
    """Events wait until a writer takes them; a batch that fails counts as failed and not as a commit, and nothing waits then."""

    async def scenario(url: str) -> None:
        async with clients(url, LIMITS) as (made, database):
            counted = made.writer._counters
            waiting = [made.send("one", 0, 2), made.send("other", 0, 3)]
            await asyncio.sleep(0)
            assert 5 == made.writer.events
            await database.close()
            made.writer.start()
            for each in waiting:
                with pytest.raises(DatabaseUnavailableError):
                    await each
            readings = counted.readings()

        assert {Labelled(UNWRITTEN.name, ()): 1} == readings.numbers
        assert Labelled(COMMIT_SECONDS.name, ()) not in readings.observed
        assert 0 == made.writer.events

    with servers[ENGINES[0]].cloned() as url:
        asyncio.run(scenario(url))
