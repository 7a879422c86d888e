"""Levels outlive the events that set them: whatever is given up, a meter of levels says what it said before."""

import random
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final

from metering.aggregations import Aggregation, Figure
from metering.corrections import correct_event
from metering.erasure import erase_user_by_command
from metering.events import AdmittedEvent, Dimension, UsageEvent
from metering.limits import LIMITS
from metering.meters import Definition
from metering.periods import Bucket, Period
from metering.questions import GroupOrder, ask
from metering.retention import Ages
from metering.rollups.read_meter import read_meter_groups, read_meter_series, read_meter_total
from metering.rollups.reconcile import Reconciler
from metering.rollups.refresh import Refresher
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from tests.metering.test_exactness import KEY, correction_of, play, record, refreshed, submission_of
from tests.metering.test_retention import DAY, MONTH, NOW, RAW_FROM, fetch, kept, run

SEATS: Final = Definition(
    key="seats",
    name="Seats",
    unit="seat",
    aggregation=Aggregation.TIME_WEIGHTED,
    distinct=None,
    filters={},
    rounding=None,
)
NAMES: Final[Mapping[str, tuple[str | None, ...]]] = {
    "account": ("a", "b", "席" * 250),
    "user": (None, "席" * 250, "席" * 249 + "次"),
    "device": (None, "ana's laptop"),
    "feature": (None, "席" * 250),
    "classification": (None, "trial"),
}
PERIODS: Final = (Period(RAW_FROM, NOW), Period(RAW_FROM + timedelta(hours=7), NOW + DAY))


def readings() -> list[AdmittedEvent]:
    """What gauges with few and long names said in three months, a third of it zeros, and in another unit besides."""
    rolls, start = random.Random(1), NOW - 90 * DAY
    events = [
        UsageEvent(
            id=f"event {number}",
            source="test",
            occurred_at=start + timedelta(hours=rolls.randrange(90 * 24)),
            product="p",
            unit=rolls.choice(("seat", "seat", "seat", "call")),
            quantity=Decimal(rolls.choice((0, 1, 4))),
            **{name: rolls.choice(values) for name, values in NAMES.items()},
        )
        for number in range(300)
    ]
    return [event for _, event in submission_of(events, NOW).admitted]


async def said(database: Database, period: Period) -> tuple[object, object, object]:
    """All that the meter says of a period: in total, by all dimensions, and of every day of each classification."""
    everyone, whole = (
        ask(period=period, zone_name="UTC", group_by=group_by, filters={}, limits=LIMITS)
        for group_by in ([Dimension.CLASSIFICATION], [*Dimension])
    )
    async with Snapshot(database) as snapshot:
        total: Figure = await read_meter_total(snapshot, SEATS, whole)
        page = await read_meter_groups(snapshot, SEATS, whole, GroupOrder("KEY", descending=False), 1_000, None)
        series = await read_meter_series(snapshot, SEATS, everyone, [(None,), ("trial",)], Bucket.DAY)
    return total, page, series


async def of_both(database: Database) -> list[object]:
    """The same of both periods."""
    return [part for period in PERIODS for part in await said(database, period)]


def test_levels_are_carried_over_what_is_given_up(database_url: str) -> None:
    """Given up day by day or in years, dropped or not yet, the figures of what is kept stay as they were; zeros leave nothing."""

    async def scenario(database: Database) -> None:
        events = readings()
        await record(database, events)
        last = max((each for each in events if each.occurred_at < RAW_FROM), key=lambda each: each.occurred_at)
        await correct_event(database, correction_of(last, {}), KEY, LIMITS)
        await refreshed(Refresher(database), NOW)
        before = await of_both(database)
        seen = []
        for days in (80, 79, 44, 30):
            ages = Ages(events=timedelta(days=days), rollups=None, rows=timedelta(days=14))
            seen.append((await run(database, ages)).raw_from)
            assert before == await of_both(database)

        assert RAW_FROM == seen[-1] == max(seen)
        assert len(set(seen)) == len(seen)
        rows = await fetch(database, "SELECT account, occurred_at, quantity, gauge FROM carried_level")
        assert 10 < len(rows) == len({row["gauge"] for row in rows})
        assert all(row["quantity"] != 0 and row["occurred_at"] < RAW_FROM for row in rows)
        # Somebody who keeps events for longer again has what was kept, and no drift where nothing is to be compared with.
        reconciler = Reconciler(database, LIMITS, None)
        assert not [step for step in await reconciler.plan_all() if (await reconciler.compare(step)).drift]

    play(database_url, scenario)


def test_who_is_erased_leaves_levels_behind_that_are_nobodys(database_url: str) -> None:
    """The levels of a user that is erased after its events were given up count on, and name neither it nor its device."""

    async def scenario(database: Database) -> None:
        user, device = NAMES["user"][1], NAMES["device"][1]
        assert user is not None
        await record(database, [each for each in readings() if each.event.user == user or each.event.device is None])
        await refreshed(Refresher(database), NOW)
        await run(database, MONTH)
        assert (await kept(database)).is_dropped
        before = [await said(database, period) for period in PERIODS]
        named = "SELECT count(*) FROM carried_level WHERE account = 'a' AND (\"user\" = $1 OR device = $2)"
        assert 0 < (await fetch(database, named, user, device))[0]["count"]

        await erase_user_by_command(database, "a", user)

        assert 0 == (await fetch(database, named, user, device))[0]["count"]
        after = [await said(database, period) for period in PERIODS]
        assert [(total, series) for total, _, series in before] == [(total, series) for total, _, series in after]

    play(database_url, scenario)
