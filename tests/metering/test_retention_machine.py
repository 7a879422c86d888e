"""Whatever is given up, dropped, converted and broken off, in any order: what is answered is exact, and the rest is refused.

The machine of test_exactness.py, in a service that forgets. Its model forgets nothing: every answer is compared with all that
was ever acknowledged, so an event that was dropped too early, or acknowledged and lost, shows in the next figure.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from metering.corrections import correct_event
from metering.errors import ConflictError, InvalidInputError
from metering.events import AdmittedEvent, Dimension
from metering.ingest.receipts import Code
from metering.ingest.write import Submission
from metering.limits import LIMITS
from metering.periods import Bucket, Period, bucket_bounds, zone_of
from metering.questions import GroupOrder, Question
from metering.reach import Reach
from metering.retention import Ages, Kept, Retention, read_kept
from metering.rollups.read import GRAIN, read_series, read_totals
from metering.rollups.refresh import Refresher
from metering.rollups.retained import Nearest, Retained, nearest
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.conftest import Server
from tests.machines import play_machine
from tests.metering.test_exactness import (
    ALL_ROWS,
    KEY,
    PATIENCE_SECONDS,
    Draft,
    Exactness,
    Fuse,
    HeldLog,
    correction_of,
    corrections,
    drafts,
    kept,
    refreshed,
    run_and_die,
    submission_of,
    totals_of,
    within,
    writing,
)

# The machine's own invariants ask for the last five days in a zone of three quarters of an hour.
days_kept = st.sampled_from([6, 20, 44, 100])
# A partition, or a chunk, is of a week: until all of it is given up it stays, with every name in it.
REST_OF_WEEK: Final = timedelta(days=6)


def ages(days: int) -> Ages:
    """Events are kept so long, rollups for ever, and rows become columns after a week."""
    return Ages(events=timedelta(days=days), rollups=None, rows=timedelta(days=7))


class Forgetting(Exactness):
    """A service that gives up what is too old."""

    def __init__(self) -> None:
        super().__init__()
        # The places of those that were taken, also where they are void by now.
        self.acknowledged: set[int] = set()

    def _acknowledged(self, submission: Submission) -> None:
        self.acknowledged.update(range(len(self.sent), len(self.sent) + len(submission.admitted)))
        super()._acknowledged(submission)

    async def _kept(self) -> Kept:
        async with self.database.connection() as connection:
            return await read_kept(connection)

    def _taken_from(self) -> datetime:
        return self.run(self._kept()).taken_from

    # -------------------------------------------------------- what happens

    @rule(drafted=st.lists(drafts, min_size=1, max_size=6), again=st.lists(st.integers(0, 99), max_size=3))
    def record(self, drafted: Sequence[Draft], again: Sequence[int]) -> None:
        """Record new events and repeated ones; those are refused that occurred before what is taken.

        One that was acknowledged, given up, and not dropped yet still has its name: repeated, it is a duplicate or refused. Names
        are dropped by whole weeks.
        """
        new = self._drafted(drafted)
        places = [place % (len(self.sent) + len(new.admitted)) for place in again]
        known = [*self.sent, *(event for _, event in new.admitted)]
        everything = [*(event for _, event in new.admitted), *(known[place] for place in places)]
        now = self.run(self._kept())
        receipt = self.run(self.writer.submit(submission_of([event.event for event in everything], self.clock)))
        too_old = {index for index, event in enumerate(everything) if event.occurred_at < now.taken_from}
        named = {
            len(new.admitted) + index
            for index, place in enumerate(places)
            if place in self.acknowledged and max(known[place].days) + REST_OF_WEEK >= now.raw_dropped_to.date()
        }
        refused = {rejection.index for rejection in receipt.rejected}
        assert {rejection.code for rejection in receipt.rejected} <= {Code.OUTSIDE_RETENTION}
        assert too_old - named <= refused <= too_old
        accepted = sum(event.occurred_at >= now.taken_from for _, event in new.admitted)
        assert (accepted, len(everything) - accepted - len(refused)) == (receipt.accepted, receipt.duplicates)
        self._take(new, now.taken_from)

    def _take(self, submission: Submission, taken_from: datetime) -> None:
        """What was sent has its place, also where it was refused: the places are part of the names."""
        for _, event in submission.admitted:
            if event.occurred_at >= taken_from:
                self.in_effect[len(self.sent)] = event
                self.acknowledged.add(len(self.sent))
            self.sent.append(event)

    @rule(place=st.integers(0, 99), void=st.booleans(), values=corrections)
    def correct(self, place: int, void: bool, values: Mapping[str, Any]) -> None:  # noqa: FBT001 - Hypothesis names it
        """Correct an event, unless it is too old."""
        event = self.sent[place % len(self.sent)]
        if event.occurred_at >= self._taken_from():
            Exactness.correct(self, place, void, values)
        else:
            with pytest.raises(ConflictError, match="not kept any more"):
                self.run(correct_event(self.database, correction_of(event, {}), KEY, LIMITS))

    @rule(drafted=st.lists(drafts, min_size=1, max_size=3), hours=st.sampled_from([1, 2, 30]))
    def race(self, drafted: Sequence[Draft], hours: int) -> None:
        """A writer of what is still taken has written but not committed, while time passes and the refresher runs."""
        new, taken_from = self._drafted(drafted), self._taken_from()
        self.clock += timedelta(hours=hours)
        taken = [each for each in new.admitted if each[1].occurred_at >= taken_from]
        if taken:
            self.run(self._race(msgspec.structs.replace(new, admitted=taken)))
        self._take(new, taken_from)

    @rule(drafted=st.lists(drafts, min_size=1, max_size=3), days=days_kept)
    def race_with_dropping(self, drafted: Sequence[Draft], days: int) -> None:
        """A writer has written but not committed, while what it wrote is given up."""
        new, taken_from = self._drafted(drafted), self._taken_from()
        taken = [event for _, event in new.admitted if event.occurred_at >= taken_from]
        if taken:
            self.run(self._race_with_dropping(taken, days))
        self._take(new, taken_from)

    async def _race_with_dropping(self, events: Sequence[AdmittedEvent], days: int) -> None:
        async with writing(HeldLog(self.database), events) as held:
            dropping = asyncio.create_task(Retention(self.database, ages(days)).run(self.clock))
            await asyncio.wait({dropping}, timeout=0.3)  # it waits where there is something to give up, and may end
            held.released.set()
        assert await dropping is not None

    @rule(days=days_kept, refresh=st.booleans())
    def give_up(self, days: int, refresh: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """What is too old is given up, and dropped where the rollups have it."""
        if refresh:
            self.run(refreshed(Refresher(self.database), self.clock))
        self.run(self._give_up(days))

    async def _give_up(self, days: int) -> None:
        done = None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while done is None:  # the server may take a moment to see that the lock's last holder is dead
                done = await Retention(self.database, ages(days)).run(self.clock)
        assert done.is_dropped

    @rule(days=days_kept, statements=st.integers(1, 25), how=st.sampled_from(["before", "after", "during"]))
    def die_while_dropping(self, days: int, statements: int, how: str) -> None:
        """Whoever drops dies at any of its statements."""

        async def drop(database: Database) -> None:
            await Retention(database, ages(days)).run(self.clock)

        self.run(run_and_die(self.database_url, Fuse(statements, how), drop))

    @rule()
    def convert(self) -> None:
        """What is older than a week becomes columns, where the engine has them."""
        self.run(Retention(self.database, ages(6)).convert(self.clock))

    # -------------------------------------------------------- what is answered

    async def _compare(
        self,
        question: Question,
        bucket: Bucket,
        order: GroupOrder,
        first: int,
        dimension: Dimension,
        reach: Reach = ALL_ROWS,
    ) -> None:
        now = await self._kept()
        retained = Retained(raw_from=now.raw_from, rollups_from=now.rollups_from, grain=GRAIN)
        period = question.period
        near = nearest(retained, period, ())
        if near != Nearest((period.start,), (period.end,)):
            async with Snapshot(self.database, reach) as snapshot:
                with pytest.raises(InvalidInputError):
                    await read_totals(snapshot, question)
            question = msgspec.structs.replace(question, period=Period(near.starts[0], near.ends[-1]))
        bounds = bucket_bounds(question.period, zone_of(question.zone_name), bucket)
        if nearest(retained, question.period, bounds) == Nearest((question.period.start,), (question.period.end,)):
            await super()._compare(question, bucket, order, first, dimension, reach)
            return
        async with Snapshot(self.database, reach) as snapshot:
            assert totals_of(kept(within(self.events, reach), question), question) == await read_totals(
                snapshot, question
            )
            with pytest.raises(InvalidInputError):
                await read_series(snapshot, question, [("a",) * len(question.group_by)], bucket)
        await self._compare_groups(question, order, first, reach)


@pytest.mark.machine
def test_whatever_is_dropped_answers_are_exact(servers: dict[str, Server], engine: str) -> None:
    """However recording, refreshing, dropping, converting and dying follow each other, what is answered is the naive answer."""

    class OnThisEngine(Forgetting):
        server = servers[engine]

    play_machine(OnThisEngine, engine, plays=8, steps=40)
