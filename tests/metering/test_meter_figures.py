"""Every figure of every meter is the naive one: what a few lines of Python make of the same events.

The machine of test_exactness.py does what a service lives through, and meters are asked about here instead of usage:
events that are rolled up, late, corrected, void, at edges and at one instant; any filters, groups, zones and periods.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from itertools import count, pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from metering.aggregations import Aggregation, Figure
from metering.corrections import correct_event
from metering.events import AdmittedEvent, Dimension, UsageEvent
from metering.limits import LIMITS
from metering.meters import FILTERED, Definition
from metering.periods import Bucket, Period
from metering.questions import GroupOrder, Question, ValueFilter, ask
from metering.reach import Reach
from metering.rollups.read import After, Key
from metering.rollups.read_meter import (
    read_meter_groups,
    read_meter_remainder,
    read_meter_series,
    read_meter_total,
)
from metering.store.pool import Database
from metering.store.snapshot import Snapshot
from rating.steps import Rounding, RoundingMode, round_to_step
from tests.conftest import Server
from tests.machines import play_machine
from tests.metering.test_exactness import (
    ALL_ROWS,
    EVERYTHING,
    KEY,
    MICROSECOND,
    START,
    VALUES,
    Draft,
    Exactness,
    connect,
    correction_of,
    drafts,
    exact_sum,
    moments,
    quantities,
    questions,
    reaches,
    record,
    submission_of,
    within,
)
from tests.strategies import MANY

GAUGE: Final = ("account", "subscription", "user", "device", "product", "feature", "unit")
COUNTING: Final = {Aggregation.COUNT, Aggregation.UNIQUE_COUNT}

orders = st.builds(GroupOrder, st.sampled_from(["KEY", "QUANTITY", "EVENTS"]), st.booleans())
roundings = st.builds(
    Rounding, st.sampled_from(RoundingMode), st.sampled_from([Decimal(text) for text in ("1", "0.05", "1000", "3")])
)


@st.composite
def definitions(draw: st.DrawFn, aggregation: Aggregation | None = None) -> Definition:
    """Meters as they may be put."""
    chosen = aggregation or draw(st.sampled_from(Aggregation))
    filters = {}
    for dimension in draw(st.lists(st.sampled_from(FILTERED), max_size=2, unique=True)):
        values = st.sampled_from([*VALUES[dimension], "nobody"])
        if dimension is Dimension.UNIT and chosen not in COUNTING:
            filters[dimension] = ValueFilter((draw(st.sampled_from(["call", "byte"])),))
        else:
            listed = draw(st.lists(st.one_of(values, st.none()), min_size=1, max_size=3))
            filters[dimension] = ValueFilter(tuple(listed), draw(st.booleans()))
    return Definition(
        key="m",
        name="a meter",
        unit=draw(st.sampled_from(["call", "byte"])),
        aggregation=chosen,
        distinct=draw(st.sampled_from(Dimension)) if chosen is Aggregation.UNIQUE_COUNT else None,
        filters=filters,
        rounding=draw(st.one_of(st.none(), roundings)),
    )


def of_calls(aggregation: Aggregation) -> Definition:
    """A meter of all calls."""
    return Definition(
        key="m", name="a meter", unit="call", aggregation=aggregation, distinct=None, filters={}, rounding=None
    )


# ---------------------------------------------------------------- the naive answers


def keeps(chosen: ValueFilter, event: AdmittedEvent, dimension: Dimension) -> bool:
    """Whether a filter keeps an event."""
    return (getattr(event.event, dimension.value) in chosen.values) is not chosen.negated


def is_meant(
    event: AdmittedEvent, definition: Definition, question: Question, left_out: frozenset[Dimension] = frozenset()
) -> bool:
    """Whether the meter's filter and the question's keep an event, at any time, but for some dimensions."""
    filters = [*definition.filters.items(), *question.filters.items()]
    if definition.aggregation not in COUNTING and Dimension.UNIT not in definition.filters:
        filters.append((Dimension.UNIT, ValueFilter((definition.unit,))))
    return all(keeps(chosen, event, dimension) for dimension, chosen in filters if dimension not in left_out)


class Held(msgspec.Struct, frozen=True):
    """An event, and from when to when its level was held inside the period."""

    event: AdmittedEvent
    start: datetime
    end: datetime
    is_inside: bool


def levels_of(events: Sequence[AdmittedEvent], definition: Definition, question: Question) -> list[Held]:
    """The levels of a period: each event's, until the next event of its gauge whatever that is classified as."""
    gauges: dict[tuple[object, ...], list[AdmittedEvent]] = {}
    for event in events:
        if is_meant(event, definition, question, frozenset({Dimension.CLASSIFICATION})):
            gauges.setdefault(tuple(getattr(event.event, name) for name in GAUGE), []).append(event)
    period, levels = question.period, []
    for of_gauge in gauges.values():
        in_turn = sorted(of_gauge, key=lambda event: (event.occurred_at, event.key))
        for event, following in zip(in_turn, [*in_turn[1:], None], strict=True):
            end = period.end if following is None else min(following.occurred_at, period.end)
            start = max(event.occurred_at, period.start)
            inside = period.start <= event.occurred_at < period.end
            counts = inside or (start < end and event.event.quantity != 0)
            if counts and is_meant(event, definition, question):
                levels.append(Held(event, start, end, inside))
    return levels


def divided(number: Fraction) -> Decimal:
    """A fraction with 18 digits after the point, half away from zero."""
    with localcontext(prec=200):
        return (Decimal(number.numerator) / Decimal(number.denominator)).quantize(Decimal("1E-18"), ROUND_HALF_UP)


def figure_of_levels(levels: Sequence[Held], definition: Definition, period: Period) -> Figure:
    """The average level, and unit-hours."""
    held = sum(
        (Fraction(each.event.event.quantity) * ((each.end - each.start) // timedelta.resolution) for each in levels),
        Fraction(0),
    )
    exact = divided(held / ((period.end - period.start) // timedelta.resolution))
    hours = divided(held / 3_600_000_000)
    return shown(exact, sum(each.is_inside for each in levels), definition, hours)


def shown(exact: Decimal | None, events: int, definition: Definition, unit_hours: Decimal | None = None) -> Figure:
    """The figure, rounded as the meter says; how is claimed in tests/rating/test_rate.py."""
    at_step = exact if exact is None or definition.rounding is None else round_to_step(exact, definition.rounding)
    return Figure(exact, at_step, events, unit_hours)


def figure_of_events(events: Sequence[AdmittedEvent], definition: Definition) -> Figure:
    """The figure of every other aggregation."""
    quantities = [event.event.quantity for event in events]
    exact: Decimal | None = None
    match definition.aggregation:
        case Aggregation.SUM:
            exact = exact_sum(quantities)
        case Aggregation.COUNT:
            exact = Decimal(len(events))
        case Aggregation.UNIQUE_COUNT:
            assert definition.distinct is not None
            values = {getattr(event.event, definition.distinct.value) for event in events}
            exact = Decimal(len(values - {None}))
        case Aggregation.AVERAGE if events:
            exact = divided(Fraction(exact_sum(quantities)) / len(events))
        case Aggregation.MAX if events:
            exact = max(quantities)
        case Aggregation.MIN if events:
            exact = min(quantities)
        case Aggregation.LATEST if events:
            newest = max(events, key=lambda event: (event.occurred_at, event.key, event.event.account))
            exact = newest.event.quantity
    return shown(exact, len(events), definition)


class Naive(msgspec.Struct, frozen=True):
    """A meter, a question, and all events in effect."""

    events: Sequence[AdmittedEvent]
    definition: Definition
    question: Question

    def within(self, period: Period) -> "Naive":
        """The same of another period."""
        question = msgspec.structs.replace(self.question, period=period)
        return msgspec.structs.replace(self, question=question)

    @property
    def is_of_levels(self) -> bool:
        """Whether levels are weighted by time."""
        return self.definition.aggregation is Aggregation.TIME_WEIGHTED

    def groups(self) -> dict[Key, Figure]:
        """The figure of every group that occurs."""
        groups = self._groups()
        return {key: self._figure(groups, {key}) for key in groups}

    def of_groups(self, keys: set[Key]) -> Figure:
        """The figure of some groups together."""
        return self._figure(self._groups(), keys)

    def total(self) -> Figure:
        """The figure of everything."""
        groups = self._groups()
        return self._figure(groups, set(groups))

    def _groups(self) -> Mapping[Key, Sequence[Held]]:
        """Levels by group; of the other aggregations each event stands in its own instant."""
        period = self.question.period
        if self.is_of_levels:
            levels = levels_of(self.events, self.definition, self.question)
        else:
            levels = [
                Held(event, event.occurred_at, event.occurred_at, is_inside=True)
                for event in self.events
                if period.start <= event.occurred_at < period.end and is_meant(event, self.definition, self.question)
            ]
        groups: dict[Key, list[Held]] = {}
        for each in levels:
            key = tuple(getattr(each.event.event, dimension.value) for dimension in self.question.group_by)
            groups.setdefault(key, []).append(each)
        return groups

    def _figure(self, groups: Mapping[Key, Sequence[Held]], keys: set[Key]) -> Figure:
        levels = [each for key in keys for each in groups[key]]
        if self.is_of_levels:
            return figure_of_levels(levels, self.definition, self.question.period)
        return figure_of_events([each.event for each in levels], self.definition)


def in_order(groups: Mapping[Key, Figure], order: GroupOrder) -> list[Key]:
    """The keys in order: by the exact figure, by events, or by key; a missing value sorts last, ties are by key."""

    def value(key: Key) -> Decimal:
        exact = groups[key].exact if order.field == "QUANTITY" else Decimal(groups[key].events)
        assert exact is not None, "a group that occurs has a figure"
        return exact

    keys = sorted(groups, key=lambda key: tuple((each is None, each or "") for each in key))
    if order.field == "KEY":
        return keys[::-1] if order.descending else keys
    return sorted(keys, key=value, reverse=order.descending)


# ---------------------------------------------------------------- the comparison


async def compare(
    database: Database, naive: Naive, bucket: Bucket, order: GroupOrder, first: int, reach: Reach = ALL_ROWS
) -> None:
    """Compare the total, the groups on two pages with their remainders, and the series of the first page."""
    async with Snapshot(database, reach) as snapshot:
        assert naive.total() == await read_meter_total(snapshot, naive.definition, naive.question)
        on_page = await compare_groups(snapshot, naive, order, first)
        if on_page:
            await compare_series(snapshot, naive, on_page, bucket)


async def compare_groups(snapshot: Snapshot, naive: Naive, order: GroupOrder, first: int) -> list[Key]:
    """Compare two pages, the first and all that follows; return the keys of the first."""
    definition, question = naive.definition, naive.question
    groups = naive.groups()
    keys = in_order(groups, order)
    page = await read_meter_groups(snapshot, definition, question, order, first, None)
    assert [(key, groups[key]) for key in keys[:first]] == [(group.key, group.figure) for group in page.groups]
    assert (len(keys), len(keys) > first) == (page.group_count, page.has_next)
    remainder = await read_meter_remainder(snapshot, definition, question, page)
    assert naive.of_groups(set(keys[first:])) == remainder
    if page.groups:
        after = After(page.groups[-1].key, page.groups[-1].order_value)
        rest = await read_meter_groups(snapshot, definition, question, order, 1_000, after)
        assert [(key, groups[key]) for key in keys[first:]] == [(group.key, group.figure) for group in rest.groups]
        assert (len(keys), False) == (rest.group_count, rest.has_next)
        others = await read_meter_remainder(snapshot, definition, question, rest)
        assert naive.of_groups(set(keys[:first])) == others
    return keys[:first]


def is_something(figure: Figure) -> bool:
    """Whether it is more than a level that rounds to zero: such a bucket may be there or not."""
    return bool(figure.events or figure.exact or figure.unit_hours)


async def compare_series(snapshot: Snapshot, naive: Naive, wanted: Sequence[Key], bucket: Bucket) -> None:
    """Compare every bucket of these groups' series; one without events is there only where a level is."""
    period = naive.question.period
    bounds, series = await read_meter_series(snapshot, naive.definition, naive.question, wanted, bucket)
    expected: list[dict[int, Figure]] = [{} for _ in wanted]
    for index, (start, end) in enumerate(pairwise(bounds)):
        groups = naive.within(Period(max(start, period.start), min(end, period.end))).groups()
        for position, key in enumerate(wanted):
            figure = groups.get(key)
            if figure is not None and is_something(figure):
                expected[position][index] = figure
    assert expected == [{index: each for index, each in of.items() if is_something(each)} for of in series]


# ---------------------------------------------------------------- the machine


_FEW: Final[Mapping[str, tuple[str | None, ...]]] = {
    "account": ("a", "a", "a", "b"),
    "user": (None, "x"),
    "classification": (None, "c"),
    "unit": ("call", "call", "byte"),
}
# Events of few gauges, so that levels are set more than once and follow each other at one instant.
few_gauges = st.builds(
    Draft,
    st.fixed_dictionaries(
        {
            dimension.value: st.sampled_from(_FEW.get(dimension.value, values[:1]))
            for dimension, values in VALUES.items()
        }
    ),
    quantities,
    moments,
    st.one_of(st.none(), st.none(), st.integers(0, 99)),
)
mixed = st.one_of(few_gauges, few_gauges, drafts)


class MeterExactness(Exactness):
    """The same service; meters are asked about."""

    @initialize(drafted=st.lists(mixed, min_size=4, max_size=12))
    def begin(self, drafted: Sequence[Draft]) -> None:
        """There is some usage to begin with."""
        super().begin(drafted)

    @rule(drafted=st.lists(mixed, min_size=1, max_size=6), again=st.lists(st.integers(0, 99), max_size=3))
    def record(self, drafted: Sequence[Draft], again: Sequence[int]) -> None:
        """Record new events, and some once more."""
        super().record(drafted, again)

    @invariant()
    def everything_is_there(self) -> None:
        """The levels of all gauges over all time, and by day over the last days, are the naive ones."""
        question = ask(period=EVERYTHING, zone_name="UTC", group_by=list(Dimension), filters={}, limits=LIMITS)
        naive = Naive(self.events, of_calls(Aggregation.TIME_WEIGHTED), question)
        self.run(compare(self.database, naive, Bucket.MONTH, GroupOrder("KEY", descending=False), 1_000))

    @invariant()
    def the_last_days_are_there(self) -> None:
        """The average of every hour of the last days, which are hours and edges of hours in Kathmandu, is the naive one."""
        question = ask(
            period=Period(self.clock - timedelta(days=5), self.clock + timedelta(days=1)),
            zone_name="Asia/Kathmandu",
            group_by=[Dimension.PRODUCT],
            filters={},
            limits=LIMITS,
        )
        naive = Naive(self.events, of_calls(Aggregation.AVERAGE), question)
        self.run(compare(self.database, naive, Bucket.DAY, GroupOrder("QUANTITY", descending=True), 1))

    @rule(data=st.data(), order=orders, first=st.integers(1, 8), reach=reaches)
    def meter(self, data: st.DataObject, order: GroupOrder, first: int, reach: Reach) -> None:
        """What every aggregation says of one question is what the naive one says of what is within reach."""
        question, bucket = data.draw(questions(self.clock))
        events = within(self.events, reach)
        for aggregation in Aggregation:
            naive = Naive(events, data.draw(definitions(aggregation)), question)
            self.run(compare(self.database, naive, bucket, order, first, reach))


@pytest.mark.machine
def test_every_figure_is_the_naive_one(servers: dict[str, Server], engine: str) -> None:
    """However events, refreshes, deaths and restarts follow each other, every meter says what the events alone say."""

    class OnThisEngine(MeterExactness):
        server = servers[engine]

    play_machine(OnThisEngine, engine, plays=8, steps=40)


# ---------------------------------------------------------------- few gauges, few instants

GRID: Final = timedelta(hours=9)
PLACES: Final = 4
_ON_GRID: Final = {"account": ("a", "a", "a", "b"), "classification": (None, "c"), "unit": ("call",), "user": (None,)}


class Reading(msgspec.Struct, frozen=True):
    """An event at one of few instants."""

    values: dict[str, str | None]
    quantity: Decimal
    place: int
    is_void: bool


readings = st.builds(
    Reading,
    st.fixed_dictionaries(
        {
            dimension.value: st.sampled_from(_ON_GRID.get(dimension.value, values[:1]))
            for dimension, values in VALUES.items()
        }
    ),
    st.integers(-3, 9).map(Decimal),
    st.integers(0, PLACES - 1),
    st.sampled_from([False, False, False, True]),
)
# Of one account, which is named anew for each try; the filters leave the account alone.
grid_questions = st.tuples(
    st.integers(0, PLACES - 1),
    st.integers(1, PLACES),
    st.sampled_from([-1, 0, 0, 1]),
    st.lists(st.sampled_from([Dimension.CLASSIFICATION, Dimension.ACCOUNT]), max_size=2, unique=True),
    st.one_of(
        st.none(),
        st.sampled_from([(None,), ("c",)]).flatmap(lambda of: st.builds(ValueFilter, st.just(of), st.booleans())),
    ),
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop for all tries of a test."""
    with asyncio.Runner() as started:
        yield started


@pytest.mark.parametrize("aggregation", [Aggregation.TIME_WEIGHTED, Aggregation.LATEST])
def test_the_last_event_counts_among_several_at_one_instant(
    runner: asyncio.Runner, database_url: str, aggregation: Aggregation
) -> None:
    """Where events of one gauge follow each other at few instants, before the period and on its edges, the last counts."""
    database = runner.run(connect(database_url))
    tries = count()

    @given(st.lists(readings, min_size=3, max_size=12), grid_questions, orders)
    @settings(MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def check(made: list[Reading], asked: tuple[Any, ...], order: GroupOrder) -> None:
        name = f"{next(tries)}"
        events = runner.run(recorded(database, made, name))
        start, length, off, group_by, classification = asked
        begin = START + start * GRID + off * MICROSECOND
        both_of = {Dimension.ACCOUNT: ValueFilter((f"a{name}", f"b{name}"))}
        question = ask(
            period=Period(begin, begin + length * GRID),
            zone_name="Asia/Kolkata",
            group_by=group_by,
            filters=both_of | ({} if classification is None else {Dimension.CLASSIFICATION: classification}),
            limits=LIMITS,
        )
        runner.run(compare(database, Naive(events, of_calls(aggregation), question), Bucket.DAY, order, 1))

    try:
        check()
    finally:
        runner.run(database.close())


async def recorded(database: Database, made: Sequence[Reading], name: str) -> list[AdmittedEvent]:
    """Record the readings under accounts of this name; return those in effect."""
    events = [
        UsageEvent(
            id=f"event {number}",
            source="test",
            occurred_at=START + reading.place * GRID,
            quantity=reading.quantity,
            **{**reading.values, "account": f"{reading.values['account']}{name}"},  # type: ignore[arg-type]  # never None
        )
        for number, reading in enumerate(made)
    ]
    submission = submission_of(events, START + 100 * GRID)
    await record(database, [event for _, event in submission.admitted])
    for index, event in submission.admitted:
        if made[index].is_void:
            await correct_event(database, correction_of(event, {}), KEY, LIMITS)
    return [event for index, event in submission.admitted if not made[index].is_void]
