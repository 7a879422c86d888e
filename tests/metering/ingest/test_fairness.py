"""One client cannot starve the others: what each has waiting is written in turns, and the greediest is refused first."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

from metering.config import Settings
from metering.errors import WriterFullError
from metering.events import UsageEvent
from metering.ingest.admit import Admission, admit
from metering.ingest.batch import Writer
from metering.ingest.bodies import PlainEvents
from metering.ingest.receipts import Receipt
from metering.ingest.refusals import Refusals
from metering.ingest.write import Submission
from metering.limits import Limits
from metering.store.event_log import EventLog
from metering.store.pool import Database

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


class Clients:
    """Clients of one writer, each with a name; and in which order their requests ended."""

    def __init__(self, writer: Writer, limits: Limits) -> None:
        self.writer = writer
        self.terms = Admission(limits=limits, now=NOW, restamp_window=timedelta(hours=1))
        self.ended: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []
        self.numbers = count()

    def send(self, sender: str, number: int, events: int) -> "asyncio.Task[Receipt | None]":
        """A request of so many new events, the sender's next one."""
        sent = [
            UsageEvent(
                id=f"e-{next(self.numbers)}",
                occurred_at=NOW,
                account=sender,
                product="maps",
                unit="call",
                source="test",
            )
            for _ in range(events)
        ]
        admitted, rejected = admit(sent, self.terms)
        origin = Refusals(sender, PlainEvents(sent))
        submission = Submission(admitted=admitted, rejected=rejected, received_at=NOW, origin=origin)

        async def submit() -> Receipt | None:
            try:
                receipt = await self.writer.submit(submission, sender)
            except WriterFullError:
                self.refused.append((sender, number))
                return None
            self.ended.append((sender, number))
            return receipt

        return asyncio.create_task(submit())


@asynccontextmanager
async def clients(url: str, limits: Limits) -> AsyncIterator[tuple[Clients, Database]]:
    """Clients of a writer that is not started yet."""
    database = await Database.connect(Settings(database_url=url), limits)
    writer = Writer(EventLog(database), limits)
    try:
        yield Clients(writer, limits), database
    finally:
        await writer.close()
        await database.close()


def test_a_client_with_one_event_does_not_wait_for_a_long_queue(database_url: str) -> None:
    """Behind 200 requests of two others, one event is written within a batch for each of them, not after all of theirs."""
    limits = Limits(batch_events_max=50, writers=1)

    async def scenario() -> list[str]:
        async with clients(database_url, limits) as (made, _):
            greedy = [made.send(f"greedy-{number % 2}", number, 10) for number in range(200)]
            # Each has put its request into the queue before the next line runs.
            await asyncio.sleep(0)
            small = made.send("small", 0, 1)
            await asyncio.sleep(0)
            made.writer.start()
            await asyncio.gather(*greedy, small)
            return [sender for sender, _ in made.ended]

    ended = asyncio.run(scenario())

    assert Counter({"greedy-0": 100, "greedy-1": 100, "small": 1}) == Counter(ended)
    assert ended.index("small") < 3 * 50 // 10


def test_small_requests_are_written_beside_large_ones(database_url: str) -> None:
    """A client of large requests and one of small ones come forward by turns: the small one gets a batch for each large."""
    limits = Limits(batch_events_max=50, writers=1)

    async def scenario() -> list[str]:
        async with clients(database_url, limits) as (made, _):
            sent = [made.send("large", number, 200) for number in range(10)]
            sent += [made.send("small", number, 1) for number in range(100)]
            await asyncio.sleep(0)
            made.writer.start()
            await asyncio.gather(*sent)
            return [sender for sender, _ in made.ended]

    ended = asyncio.run(scenario())

    assert "large" == ended[0]
    assert ["small"] * 50 + ["large"] + ["small"] * 50 + ["large"] == ended[1:103]


def test_only_the_greediest_is_refused(database_url: str) -> None:
    """When the queue is full, a newcomer's request takes the place of the greediest's newest one; what is told is true."""
    limits = Limits(queue_events_max=100, batch_events_max=50, writers=1)

    async def scenario() -> tuple[Clients, list[Receipt | None], int]:
        async with clients(database_url, limits) as (made, database):
            sent = [made.send("greedy", number, 10) for number in range(12)]
            sent += [made.send("modest", number, 5) for number in range(2)]
            sent += [made.send("small", 0, 1)]
            await asyncio.sleep(0)
            made.writer.start()
            receipts = await asyncio.gather(*sent)
            async with database.connection() as connection:
                return made, receipts, await connection.fetchval("SELECT count(*) FROM event")

    made, receipts, events = asyncio.run(scenario())

    # 100 fit; the last two were too many of its own, then one made way for 5 and 5, and one for the one event.
    assert {("greedy", number) for number in (8, 9, 10, 11)} == set(made.refused)
    accepted = sum(receipt.accepted for receipt in receipts if receipt is not None)
    assert 8 * 10 + 2 * 5 + 1 == accepted == events


def test_what_was_sent_away_may_be_sent_again(database_url: str) -> None:
    """A request that made way was not written: sent again, all of it is accepted and nothing is a duplicate."""
    limits = Limits(queue_events_max=20, batch_events_max=50, writers=1)

    async def scenario() -> tuple[Receipt, list[str]]:
        async with clients(database_url, limits) as (made, _):
            event = UsageEvent(id="e", occurred_at=NOW, account="a", product="p", unit="u", source="s")
            admitted, _ = admit([event], made.terms)
            origin = Refusals("greedy", PlainEvents([event]))
            submission = Submission(admitted=admitted, rejected=[], received_at=NOW, origin=origin)
            sent = [made.send("greedy", 0, 19)]
            await asyncio.sleep(0)
            pushed = asyncio.create_task(made.writer.submit(submission, "greedy"))
            await asyncio.sleep(0)
            sent += [made.send("small", 0, 1)]
            await asyncio.sleep(0)
            outcome = await asyncio.gather(pushed, return_exceptions=True)
            made.writer.start()
            await asyncio.gather(*sent)
            again = await made.writer.submit(submission, "greedy")
            return again, [str(each) for each in outcome]

    receipt, (told,) = asyncio.run(scenario())

    assert Receipt(1, 0, ()) == receipt
    assert "Others wait too" in told
