"""Usage of subscriptions that no price covers: it costs nothing, and is never silently dropped.

Usage is covered where the meter of a price in effect counts it, also in a trial, in which it is free. What is used while no
plan is in effect is not covered at all.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec

from metering.errors import InvalidInputError
from metering.events import Dimension
from metering.limits import LIMITS
from metering.questions import Question, ValueFilter
from metering.rollups.read import Total, check_retained, read_period_rows
from metering.statements.figures import SUBSCRIBER, Subscriber, chains, metered_period
from metering.store.snapshot import Snapshot
from rating.exact import add
from rating.meters import Meter, MeterFilter
from rating.periods import Period
from rating.subscriptions import Subscription

# What a meter's filter may ask of usage, in the order of a row's key behind the subscriber; the unit comes with the figures.
_FILTERED: Final = (Dimension.PRODUCT, Dimension.FEATURE, Dimension.CLASSIFICATION)


class Covering(msgspec.Struct, frozen=True):
    """A stretch of a subscription's time, and the meters of the prices that are in effect in it.

    `place` is that of the statement that it belongs to, among those that are asked about together.
    """

    place: int
    subscriber: Subscriber
    period: Period
    meters: frozenset[str]


class UnratedRead(msgspec.Struct, frozen=True):
    """Usage that is not covered, by place and unit; and why that of some is not to be had any more."""

    totals: Mapping[int, tuple[Total, ...]]
    unreadable: Mapping[int, InvalidInputError]


def coverings_of(place: int, subscriber: Subscriber, terms: Subscription, period: Period) -> list[Covering]:
    """The stretches of a period: one for each phase that touches it, and one for each gap between phases."""
    stretches, at = [], period.start
    for phase in terms.phases:
        start, end = max(phase.start, at), period.end if phase.end is None else min(phase.end, period.end)
        if start >= end:
            continue
        if at < start:
            stretches.append(Covering(place, subscriber, Period(at, start), frozenset()))
        meters = frozenset(price.meter for price in phase.plan.prices if price.meter is not None)
        stretches.append(Covering(place, subscriber, Period(start, end), meters))
        at = end
    if at < period.end:
        stretches.append(Covering(place, subscriber, Period(at, period.end), frozenset()))
    return stretches


async def read_unrated(snapshot: Snapshot, coverings: Collection[Covering], meters: Mapping[str, Meter]) -> UnratedRead:
    """What is not covered, of each statement over all its stretches together."""
    unreadable = await _unreadable(snapshot, coverings)
    readable = [each for each in coverings if each.place not in unreadable]
    sums: dict[int, dict[str, Total]] = {}
    async for covering, total, _ in read_uncovered(snapshot, readable, meters, also=()):
        by_unit = sums.setdefault(covering.place, {})
        known = by_unit.get(total.unit)
        by_unit[total.unit] = total if known is None else together(known, total)
    totals = {place: tuple(by_unit[unit] for unit in sorted(by_unit)) for place, by_unit in sums.items()}
    return UnratedRead(totals, unreadable)


async def count_unrated(
    snapshot: Snapshot, coverings: Collection[Covering], meters: Mapping[str, Meter], dimension: Dimension
) -> Mapping[int, Mapping[str, int] | InvalidInputError]:
    """How many values of a dimension such usage has, by place and unit; or why that is not to be had any more.

    A place without such usage is left out.
    """
    unreadable = await _unreadable(snapshot, coverings)
    readable = [each for each in coverings if each.place not in unreadable]
    values: dict[int, dict[str, set[str]]] = {}
    async for covering, total, shown in read_uncovered(snapshot, readable, meters, also=(dimension,)):
        value = shown[dimension]
        of_unit = values.setdefault(covering.place, {}).setdefault(total.unit, set())
        of_unit.update([] if value is None else [value])
    counts = {place: {unit: len(found) for unit, found in by_unit.items()} for place, by_unit in values.items()}
    return {**unreadable, **counts}


async def read_uncovered(
    snapshot: Snapshot,
    coverings: Collection[Covering],
    meters: Mapping[str, Meter],
    *,
    also: Sequence[Dimension],
    filters: Mapping[Dimension, ValueFilter] = MappingProxyType({}),
) -> AsyncIterator[tuple[Covering, Total, Mapping[Dimension, str | None]]]:
    """Rows of usage that no meter counts, by what tells them apart; those that ask alike share a statement.

    Dimensions in `also` are told apart besides; `filters` are of other dimensions than account and subscription.
    """
    more = tuple(each for each in also if each not in (*SUBSCRIBER, Dimension.UNIT))
    by_dimensions: dict[tuple[Dimension, ...], dict[Period, list[Covering]]] = {}
    for each in coverings:
        dimensions = _told_apart(meters[key].filter for key in each.meters)
        by_dimensions.setdefault(dimensions, {}).setdefault(each.period, []).append(each)
    for dimensions, by_period in by_dimensions.items():
        group_by = (*SUBSCRIBER, *dict.fromkeys((*dimensions, *more)))
        for chain in chains(by_period):
            asked = [each for period in chain for each in by_period[period]]
            wanted: dict[tuple[object, ...], Covering] = {
                (each.subscriber.account, each.subscriber.subscription, each.period.start, each.period.end): each
                for each in asked
            }
            question = _question(chain, group_by, {each.subscriber for each in asked}, filters)
            periods = [metered_period(period) for period in chain]
            async for rows in read_period_rows(snapshot, question, periods, LIMITS.export_rows_held_max):
                for row in rows:
                    values = dict(zip(group_by, row.key, strict=True)) | {Dimension.UNIT: row.total.unit}
                    # An account may name what is another's subscription; that is nobody's here.
                    account, subscription = values[Dimension.ACCOUNT], values[Dimension.SUBSCRIPTION]
                    found = wanted.get((account, subscription, row.start, row.end))
                    if found is not None and not any(_counts(meters[key].filter, values) for key in found.meters):
                        yield found, row.total, values


def _told_apart(filters: Iterable[MeterFilter]) -> tuple[Dimension, ...]:
    """The dimensions that decide about coverage: the fewer they are, the narrower is the rollup that tells."""
    kept = list(filters)
    return tuple(each for each in _FILTERED if any(getattr(one, each.value) is not None for one in kept))


def _question(
    chain: Sequence[Period],
    group_by: tuple[Dimension, ...],
    subscribers: Collection[Subscriber],
    filters: Mapping[Dimension, ValueFilter] = MappingProxyType({}),
) -> Question:
    accounts = tuple(sorted({each.account for each in subscribers}))
    subscriptions = tuple(sorted({each.subscription for each in subscribers}))
    return Question(
        period=metered_period(Period(chain[0].start, chain[-1].end)),
        zone_name="UTC",
        group_by=group_by,
        filters={
            **filters,
            Dimension.ACCOUNT: ValueFilter(accounts),
            Dimension.SUBSCRIPTION: ValueFilter(subscriptions),
        },
    )


def _counts(chosen: MeterFilter, values: Mapping[Dimension, str | None]) -> bool:
    for dimension in (*_FILTERED, Dimension.UNIT):
        kept = getattr(chosen, dimension.value)
        if kept is not None and (values[dimension] in kept.values) is kept.excluded:
            return False
    return True


def together(one: Total, other: Total) -> Total:
    """Figures of one unit, brought together."""
    return Total(
        one.unit,
        add(one.quantity, other.quantity),
        one.events + other.events,
        _extreme(min, one.minimum, other.minimum),
        _extreme(max, one.maximum, other.maximum),
    )


def _extreme(of: Callable[[Decimal, Decimal], Decimal], one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else of(one, other)


async def _unreadable(snapshot: Snapshot, coverings: Collection[Covering]) -> dict[int, InvalidInputError]:
    faults: dict[Period, InvalidInputError] = {}
    for period in {each.period for each in coverings}:
        try:
            await check_retained(snapshot, _question([period], SUBSCRIBER, ()))
        except InvalidInputError as error:
            faults[period] = error
    return {each.place: faults[each.period] for each in coverings if each.period in faults}
