"""What meters show of subscriptions in exact periods: for one, or for many at once, in one snapshot.

An event counts for the subscription that it names, where that is one of its account. Figures are exact as of the snapshot:
rollups, the tail, what is pending and the raw edges, read as the meter says. Subscriptions that ask a meter for the same
period, or for periods that lie apart, share a statement.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from metering.errors import InvalidInputError
from metering.events import Dimension
from metering.meters import Definition
from metering.periods import Period
from metering.questions import Question
from metering.rollups.read_meter import check_meter_retained, read_meter_periods
from metering.store.snapshot import Snapshot
from rating import periods as rating
from rating.meters import NO_USAGE, Figure

SUBSCRIBER: Final = (Dimension.ACCOUNT, Dimension.SUBSCRIPTION)


class Subscriber(msgspec.Struct, frozen=True, order=True):
    """Whose usage is meant: a subscription, with the account that it belongs to."""

    account: str
    subscription: str


class Needed(msgspec.Struct, frozen=True):
    """A figure that rating asks for."""

    subscriber: Subscriber
    meter: str
    period: rating.Period


class FiguresRead(msgspec.Struct, frozen=True):
    """The figures; and why some are not to be had any more, which are not among them."""

    figures: Mapping[Needed, Figure]
    unreadable: Mapping[Needed, InvalidInputError]


async def read_figures(
    snapshot: Snapshot, needed: Collection[Needed], definitions: Mapping[str, Definition]
) -> FiguresRead:
    """Read figures exactly, before their meters' rounding, which is rating's; a meter that measured nothing shows zero."""
    faults = await _faults(snapshot, {(each.meter, each.period) for each in needed}, definitions)
    readable: dict[str, dict[rating.Period, list[Subscriber]]] = {}
    for each in needed:
        if (each.meter, each.period) not in faults:
            readable.setdefault(each.meter, {}).setdefault(each.period, []).append(each.subscriber)
    figures: dict[Needed, Figure] = {}
    for meter, by_period in readable.items():
        for chain in chains(by_period):
            subscribers = sorted({each for period in chain for each in by_period[period]})
            shown = await _shown(snapshot, definitions[meter], subscribers, chain)
            figures |= {
                Needed(subscriber, meter, period): shown.get((subscriber, period), NO_USAGE)
                for period in chain
                for subscriber in by_period[period]
            }
    unreadable = {each: faults[each.meter, each.period] for each in needed if (each.meter, each.period) in faults}
    return FiguresRead(figures, unreadable)


def chains(periods: Iterable[rating.Period]) -> list[list[rating.Period]]:
    """Periods in rows of such as follow each other without overlapping: one statement reads a row."""
    rows: list[list[rating.Period]] = []
    for period in sorted(periods):
        row = next((row for row in rows if row[-1].end <= period.start), None)
        if row is None:
            rows.append([period])
        else:
            row.append(period)
    return rows


def metered_period(period: rating.Period) -> Period:
    """A period as questions have it."""
    return Period(period.start, period.end)


async def _shown(
    snapshot: Snapshot, definition: Definition, subscribers: Sequence[Subscriber], chain: Sequence[rating.Period]
) -> dict[tuple[Subscriber, rating.Period], Figure]:
    wanted = [(each.account, each.subscription) for each in subscribers]
    periods = [metered_period(period) for period in chain]
    of_wanted = await read_meter_periods(snapshot, definition, SUBSCRIBER, wanted, periods)
    return {
        (subscriber, chain[place]): Figure(NO_USAGE.quantity if shown.exact is None else shown.exact, shown.events)
        for subscriber, by_place in zip(subscribers, of_wanted, strict=True)
        for place, shown in by_place.items()
    }


async def _faults(
    snapshot: Snapshot, asked: Collection[tuple[str, rating.Period]], definitions: Mapping[str, Definition]
) -> dict[tuple[str, rating.Period], InvalidInputError]:
    """What cannot be read any more, for what is retained does not tell it."""
    faults = {}
    for meter, period in asked:
        question = Question(period=metered_period(period), zone_name="UTC", group_by=SUBSCRIBER, filters={})
        try:
            await check_meter_retained(snapshot, definitions[meter], question)
        except InvalidInputError as error:
            faults[meter, period] = error
    return faults
