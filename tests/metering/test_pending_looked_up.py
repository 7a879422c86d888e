"""What is pending costs a question as much as it is many, whatever else there is of its time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from metering.events import Dimension, UsageEvent
from metering.limits import LIMITS
from metering.periods import Bucket, Period
from metering.questions import GroupOrder, ask
from metering.rollups.read import read_groups, read_values
from metering.rollups.refresh import Refresher
from metering.store.event_log import quarter_hour_of
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.metering.catalog import play
from tests.metering.plans import nodes_of, plan_of, rows_seen
from tests.metering.test_exactness import NOW, pending, record, submission_of

ACCOUNTS: Final = 50
# Of each account in each quarter of an hour of two days: one that is over, and one that is not.
DAYS: Final = [NOW.replace(hour=0, minute=0) - timedelta(days=1), NOW.replace(hour=0, minute=0)]
EVENTS_PER_QUARTER: Final = 10
LATE_QUARTERS: Final = 5

FILL: Final = """
INSERT INTO event (account, occurred_at, key, source, event_id, received_at, product, unit, quantity)
SELECT 'account ' || account, $1::timestamptz + number * interval '90 seconds', sha256(int4send(account * 10000 + number)),
       'test', 'an event', now(), 'p', 'call', 1
FROM generate_series(1, $2) AS account, generate_series(0, $3 - 1) AS number
"""


class ExplainedSnapshot(Snapshot):
    """A snapshot that keeps the plan of what it was asked last."""

    plan: Mapping[str, Any]

    async def fetch(self, statement: str, arguments: Sequence[object] = (), *, hashed: bool = False) -> list[Any]:
        """The rows, and the plan besides."""
        explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
        ((explained,),) = await super().fetch(explain, arguments, hashed=hashed)
        self.plan = plan_of(explained)
        return await super().fetch(statement, arguments, hashed=hashed)


def late_of(day: datetime) -> list[UsageEvent]:
    """An event of each account in a few quarters of an hour of a day."""
    return [
        UsageEvent(
            id=f"late {account} {day} {quarter}",
            source="test",
            occurred_at=day + quarter * timedelta(minutes=15) + timedelta(seconds=1),
            account=f"account {account}",
            product="p",
            unit="call",
        )
        for account in range(1, ACCOUNTS + 1)
        for quarter in range(0, LATE_QUARTERS * 9, 9)
    ]


async def fill(database: Database) -> tuple[int, int]:
    """Both days rolled up, and events of them that came late: how many of each there are."""
    admitted = submission_of([event for day in DAYS for event in late_of(day)], NOW).admitted
    first, *late, last = [event for _, event in admitted]
    await record(database, [first, last])  # makes both days
    async with database.connection() as connection:
        for day in DAYS:
            quarters = (min(day + timedelta(days=1), quarter_hour_of(NOW)) - day) // timedelta(minutes=15)
            await connection.execute(FILL, day, ACCOUNTS, quarters * EVENTS_PER_QUARTER)
        await connection.execute("ANALYZE event")
        filled = await connection.fetchval("SELECT count(*) FROM event")
    await Refresher(database).run(NOW)
    await record(database, late)
    assert len(late) == await pending(database)
    return filled, len(late)


def most_read(snapshot: ExplainedSnapshot) -> int:
    """How many rows the part of the last plan saw that saw most."""
    return max(rows_seen(node) for node in nodes_of(snapshot.plan))


@pytest.mark.parametrize("extremes", [False, True])
@pytest.mark.parametrize("group_by", [Dimension.PRODUCT, Dimension.ACCOUNT, Dimension.USER])
def test_what_is_pending_is_looked_up(database_url: str, group_by: Dimension, extremes: bool) -> None:  # noqa: FBT001
    """PostgreSQL knows nothing of the log, which was empty when it looked: it must not compare it with every event."""

    async def scenario(database: Database) -> None:
        filled, late = await fill(database)
        question = ask(period=Period(DAYS[0], NOW), zone_name="UTC", group_by=[group_by], filters={}, limits=LIMITS)
        question = msgspec.structs.replace(question, extremes=extremes)
        async with ExplainedSnapshot(database) as snapshot:
            page = await read_groups(snapshot, question, GroupOrder("EVENTS", descending=True), 100, None, Bucket.DAY)
            assert filled + late == sum(total.events for group in page.groups for total in group.totals)
            assert most_read(snapshot) < filled / 4

    play(database_url, scenario)


def test_what_is_pending_is_looked_up_once_however_many_accounts_are_named(database_url: str) -> None:
    """Accounts are named one behind the other, and each time from what was found."""

    async def scenario(database: Database) -> None:
        filled, _ = await fill(database)
        question = ask(period=Period(DAYS[0], NOW), zone_name="UTC", group_by=[], filters={}, limits=LIMITS)
        async with ExplainedSnapshot(database) as snapshot:
            named = await read_values(snapshot, question, Dimension.ACCOUNT, "account", ACCOUNTS)
            assert sorted(f"account {number}" for number in range(1, ACCOUNTS + 1)) == named
            assert most_read(snapshot) < filled / 4

    play(database_url, scenario)
