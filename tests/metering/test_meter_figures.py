"""Every figure of every meter is the naive one: what a few lines of Python make of the same events.

The machine of test_exactness.py does what a service lives through, and meters are asked about here instead of usage:
events that are rolled up, late, corrected, void, at edges and at one instant; any filters, groups, zones and periods.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Final

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from metering.aggregations import Aggregation, Figure, Rounding, RoundingMode, rounded
from metering.events import AdmittedEvent, Dimension
from metering.limits import LIMITS
from metering.meters import FILTERED, Definition
from metering.periods import Bucket, Period
from metering.questions import GroupOrder, Question, ValueFilter, ask
from metering.rollups.read import After, Key
from metering.rollups.read_meter import (
    read_meter_groups,
    read_meter_remainder,
    read_meter_series,
    read_meter_total,
)
from metering.store.snapshot import Snapshot
from tests.conftest import Server
from tests.metering.test_exactness import EVERYTHING, VALUES, Exactness, exact_sum, questions

SERIES: Final = ("account", "subscription", "user", "device", "product", "feature", "unit")
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
    in_scope = question.accounts is None or event.event.account in question.accounts
    return in_scope and all(
        keeps(chosen, event, dimension) for dimension, chosen in filters if dimension not in left_out
    )


class Held(msgspec.Struct, frozen=True):
    """An event, and from when to when its level was held inside the period."""

    event: AdmittedEvent
    start: datetime
    end: datetime
    is_inside: bool


def levels_of(events: Sequence[AdmittedEvent], definition: Definition, question: Question) -> list[Held]:
    """The levels of a period: each event's, until the next event of its series whatever that is classified as."""
    series: dict[tuple[object, ...], list[AdmittedEvent]] = {}
    for event in events:
        if is_meant(event, definition, question, frozenset({Dimension.CLASSIFICATION})):
            series.setdefault(tuple(getattr(event.event, name) for name in SERIES), []).append(event)
    period, levels = question.period, []
    for of_series in series.values():
        in_turn = sorted(of_series, key=lambda event: (event.occurred_at, event.key))
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
    """The figure, rounded as the meter says; how is claimed in test_aggregations.py."""
    at_step = exact if exact is None or definition.rounding is None else rounded(exact, definition.rounding)
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


# ---------------------------------------------------------------- the machine


class MeterExactness(Exactness):
    """The same service; meters are asked about."""

    @invariant()
    def everything_is_there(self) -> None:
        """The levels of all series over all time, and by day over the last days, are the naive ones."""
        definition = Definition(
            key="m", name="m", unit="call", aggregation=Aggregation.TIME_WEIGHTED, distinct=None, filters={}, rounding=None
        )  # fmt: skip
        question = ask(
            period=EVERYTHING, zone_name="UTC", group_by=list(Dimension), filters={}, accounts=None, limits=LIMITS
        )
        self.run(self._compare_meter(definition, question, Bucket.MONTH, GroupOrder("KEY", descending=False), 1_000))

    @invariant()
    def the_last_days_are_there(self) -> None:
        """The average of every hour of the last days, which are hours and edges of hours in Kathmandu, is the naive one."""
        definition = Definition(
            key="m", name="m", unit="byte", aggregation=Aggregation.AVERAGE, distinct=None, filters={}, rounding=None
        )  # fmt: skip
        question = ask(
            period=Period(self.clock - timedelta(days=5), self.clock + timedelta(days=1)),
            zone_name="Asia/Kathmandu",
            group_by=[Dimension.PRODUCT],
            filters={},
            accounts=None,
            limits=LIMITS,
        )
        self.run(self._compare_meter(definition, question, Bucket.DAY, GroupOrder("QUANTITY", descending=True), 1))

    @rule(data=st.data(), order=orders, first=st.integers(1, 8))
    def meter(self, data: st.DataObject, order: GroupOrder, first: int) -> None:
        """What every aggregation says of one question is what the naive one says."""
        question, bucket = data.draw(questions(self.clock))
        for aggregation in Aggregation:
            definition = data.draw(definitions(aggregation))
            self.run(self._compare_meter(definition, question, bucket, order, first))

    async def _compare_meter(
        self, definition: Definition, question: Question, bucket: Bucket, order: GroupOrder, first: int
    ) -> None:
        naive = Naive(self.events, definition, question)
        async with Snapshot(self.database) as snapshot:
            assert naive.total() == await read_meter_total(snapshot, definition, question)
            on_page = await self._compare_meter_groups(snapshot, naive, order, first)
            if on_page:
                await self._compare_meter_series(snapshot, naive, on_page, bucket)

    async def _compare_meter_groups(self, snapshot: Snapshot, naive: Naive, order: GroupOrder, first: int) -> list[Key]:
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

    async def _compare_meter_series(
        self, snapshot: Snapshot, naive: Naive, wanted: Sequence[Key], bucket: Bucket
    ) -> None:
        period = naive.question.period
        bounds, series = await read_meter_series(snapshot, naive.definition, naive.question, wanted, bucket)
        expected: list[dict[int, Figure]] = [{} for _ in wanted]
        for index, (start, end) in enumerate(pairwise(bounds)):
            groups = naive.within(Period(max(start, period.start), min(end, period.end))).groups()
            for position, key in enumerate(wanted):
                figure = groups.get(key)
                if figure is not None and (figure.events or not naive.is_of_levels or figure.unit_hours):
                    expected[position][index] = figure
        assert expected == series


def test_every_figure_is_the_naive_one(servers: dict[str, Server], engine: str) -> None:
    """However events, refreshes, deaths and restarts follow each other, every meter says what the events alone say."""

    class OnThisEngine(MeterExactness):
        server = servers[engine]

    checked = settings(
        max_examples=15,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(OnThisEngine, settings=checked)
