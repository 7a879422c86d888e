"""Figures of many subscriptions are read together, and are what each would be if it were asked for alone."""

import random
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Final

import pytest

from metering.aggregations import Aggregation
from metering.events import Dimension, UsageEvent
from metering.meters import read_definitions
from metering.questions import Question, ValueFilter
from metering.rated_meters import read_rated_meters
from metering.rollups.read import Total
from metering.rollups.read_meter import read_meter_total
from metering.statements.figures import Needed, Subscriber, metered_period, read_figures
from metering.statements.unrated import Covering, count_unrated, read_unrated
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.meters import NO_USAGE, Figure
from rating.periods import Period
from tests.metering.billing import roll_up, use
from tests.metering.catalog import meter, play
from tests.rating.tables import at, period

SUBSCRIBERS: Final = [Subscriber("a", "s"), Subscriber("a", "t"), Subscriber("b", "s"), Subscriber("b", "nobody")]
PERIODS: Final = [
    period("2025-01-01", "2025-02-01"),
    period("2025-02-01", "2025-03-01"),
    period("2025-04-01", "2025-05-01"),
    # Bounds that are no bucket's, and that lie across others.
    period("2025-01-10T14:37:22.123457", "2025-01-20"),
    period("2025-01-20", "2025-02-20T03:00:00.000001"),
    period("2025-02-03T00:07", "2025-02-03T00:07:00.000001"),
]


def usage(seed: int, count: int) -> list[UsageEvent]:
    """Events by chance: of subscriptions that are asked for and of others, many of them at the bounds of periods."""
    chance = random.Random(seed)
    bounds = [bound for each in PERIODS for bound in (each.start, each.end)]
    events = []
    for number in range(count):
        near = chance.choice(bounds) + chance.choice([-1, 0, 1]) * timedelta.resolution
        anywhere = at("2024-12-20") + timedelta(seconds=chance.randrange(140 * 86_400))
        events.append(
            UsageEvent(
                id=f"{seed}-{number}",
                source="test",
                occurred_at=chance.choice([near, anywhere]),
                account=chance.choice(["a", "b"]),
                subscription=chance.choice(["s", "t", None]),
                user=chance.choice(["x", "y", None]),
                product=chance.choice(["maps", "mail"]),
                feature=chance.choice(["f", None]),
                unit=chance.choice(["call", "byte"]),
                quantity=Decimal(chance.randrange(-5, 50)) / 4,
            )
        )
    return events


def asked(subscriber: Subscriber, of: Period) -> Question:
    """The usage of one subscription in one period."""
    filters = {
        Dimension.ACCOUNT: ValueFilter((subscriber.account,)),
        Dimension.SUBSCRIPTION: ValueFilter((subscriber.subscription,)),
    }
    return Question(period=metered_period(of), zone_name="UTC", group_by=(), filters=filters)


async def meters(database: Database) -> list[str]:
    """A meter of each aggregation; all but one are of one product."""
    for aggregation in Aggregation:
        await meter(database, aggregation.value, aggregation, product=["maps"])
    await meter(database, "everything")
    return [*(aggregation.value for aggregation in Aggregation), "everything"]


def test_figures_of_many_are_those_of_each(database_url: str) -> None:
    """Every meter's figure of every subscription and period, read together, is the meter's own answer to that alone: rolled
    up, late, at the bounds, and where there was no usage.
    """

    async def scenario(database: Database) -> None:
        keys = await meters(database)
        await use(database, *usage(1, 300))
        await roll_up(database)
        await use(database, *usage(2, 60))
        needed = [Needed(*each) for each in product(SUBSCRIBERS, keys, PERIODS)]
        async with Snapshot(database) as snapshot:
            definitions = await read_definitions(snapshot, keys)
            read = await read_figures(snapshot, needed, definitions)
            expected = {}
            for each in needed:
                alone = await read_meter_total(snapshot, definitions[each.meter], asked(each.subscriber, each.period))
                expected[each] = Figure(Decimal(0) if alone.exact is None else alone.exact, alone.events)

        assert ({}, expected) == (read.unreadable, read.figures)
        assert len({figure for figure in expected.values() if figure != NO_USAGE}) > 100

    play(database_url, scenario)


def test_figures_that_are_not_to_be_had_any_more(database_url: str) -> None:
    """A figure that needs events that are gone is named with the reason, and keeps no other from being read."""

    async def scenario(database: Database) -> None:
        await meter(database, "calls")
        await use(database, *usage(4, 10))
        await roll_up(database)
        async with database.connection() as connection:
            await connection.execute("UPDATE retained_range SET raw_from = '2025-02-01', taken_from = '2025-02-01'")
        needed = [Needed(SUBSCRIBERS[0], "calls", each) for each in PERIODS]
        async with Snapshot(database) as snapshot:
            read = await read_figures(snapshot, needed, await read_definitions(snapshot, ["calls"]))

        assert [PERIODS[3]] == [each.period for each in read.unreadable]
        assert len(PERIODS) - 1 == len(read.figures)

    play(database_url, scenario)


def naive(events: list[UsageEvent], coverings: list[Covering]) -> dict[int, dict[str, list[Decimal]]]:
    """Quantities that no meter counts, by place and unit; a meter is named by the product that it counts, of calls."""
    found: dict[int, dict[str, list[Decimal]]] = {}
    for event in events:
        for each in coverings:
            of = (event.account, event.subscription) == (each.subscriber.account, each.subscriber.subscription)
            inside = each.period.start <= event.occurred_at < each.period.end
            if of and inside and not (event.unit == "call" and event.product in each.meters):
                found.setdefault(each.place, {}).setdefault(event.unit, []).append(event.quantity)
    return found


@pytest.mark.parametrize("rolled_up", [False, True])
def test_what_is_not_covered_is_what_no_meter_counts(database_url: str, rolled_up: bool) -> None:  # noqa: FBT001
    """Usage outside of every meter of its stretch is listed by unit, each event once, and its users are counted."""

    async def scenario(database: Database) -> None:
        for name in ("maps", "mail"):
            await meter(database, name, product=[name])
        events = usage(3, 200)
        await use(database, *events)
        if rolled_up:
            await roll_up(database)
        sets = [frozenset[str](), frozenset({"maps"}), frozenset({"maps", "mail"})]
        coverings = [
            Covering(place, subscriber, of, sets[(place + number) % 3])
            for place, (subscriber, pair) in enumerate(product(SUBSCRIBERS, [PERIODS[:3], PERIODS[3:]]))
            for number, of in enumerate(pair)
        ]
        async with Snapshot(database) as snapshot:
            known = await read_rated_meters(snapshot, ["maps", "mail"])
            read = await read_unrated(snapshot, coverings, known)
            users = await count_unrated(snapshot, coverings, known, Dimension.USER)
            units = await count_unrated(snapshot, coverings, known, Dimension.UNIT)

        expected = {
            place: tuple(
                Total(unit, sum(of, Decimal(0)), len(of), min(of), max(of)) for unit, of in sorted(by_unit.items())
            )
            for place, by_unit in naive(events, coverings).items()
        }
        assert ({}, expected) == (read.unreadable, read.totals)
        distinct: dict[int, dict[str, set[str | None]]] = {}
        for event in events:
            for place in naive([event], coverings):
                distinct.setdefault(place, {}).setdefault(event.unit, set()).add(event.user)
        assert users == {
            place: {unit: len(of - {None}) for unit, of in by_unit.items()} for place, by_unit in distinct.items()
        }
        assert units == {place: dict.fromkeys(by_unit, 1) for place, by_unit in distinct.items()}

    play(database_url, scenario)
