"""The usage behind meters' figures, at the finest grain: what each combination of all dimensions used in an exact period,
and of that until two instants.

Of sums, counts and averages it is the quantities and the events themselves. Of the others it is what the meter itself says
of each combination: its maximum, latest, number of values until then; of levels, the unit-hours that it was held.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final

import msgspec

from metering.aggregations import Aggregation, Figure
from metering.errors import InputIssue, InvalidInputError, TooLargeError
from metering.events import Dimension
from metering.limits import LIMITS
from metering.meters import Definition, metered
from metering.questions import GroupOrder, Question, ValueFilter
from metering.rollups.read import After, read_period_rows
from metering.rollups.read_meter import check_meter_retained, read_meter_groups
from metering.statements.figures import Needed, Subscriber, chains, metered_period
from metering.store.snapshot import Snapshot
from rating import periods as rating
from rating.attribution import Key
from rating.charges import Behind, UsageBehind
from rating.exact import ZERO, add
from rating.periods import instant_text

# The order of a key's values.
GRAIN: Final = tuple(Dimension)
# A row tells its unit itself, behind its key.
_GROUPED: Final = tuple(dimension for dimension in GRAIN if dimension is not Dimension.UNIT)
# Their usage is added up over time: the parts of a period are the period.
_ADDED: Final = frozenset({Aggregation.SUM, Aggregation.COUNT, Aggregation.AVERAGE})

# What was used before the asked period starts, inside, and behind it.
_Cut = list[Decimal]


class _Held(msgspec.Struct):
    """How much of it is held, and may be."""

    maximum: int
    rows: int = 0

    def take(self, rows: int) -> None:
        """Raises TooLargeError where more would be held."""
        self.rows += rows
        check_shares(self.rows, self.maximum)


def check_shares(shares: int, maximum: int) -> None:
    """Raise TooLargeError for more shares than are held."""
    if shares > maximum:
        advice = (
            "Each amount is shared out among all combinations of dimensions that usage has. Ask for a shorter period, or for "
            "whole billing periods by account and subscription only."
        )
        raise TooLargeError(shares, maximum, advice)


async def read_behind(
    snapshot: Snapshot,
    needed: Collection[Needed],
    definitions: Mapping[str, Definition],
    asked: rating.Period,
    rows_max: int,
) -> Mapping[Needed, Sequence[Behind]]:
    """The usage behind each figure; those that ask alike share a statement. What nothing is behind is left out.

    Raises InvalidInputError where it is not kept any more; TooLargeError where it is more than `rows_max`.
    """
    held = _Held(rows_max)
    by_meter: dict[str, dict[rating.Period, list[Subscriber]]] = {}
    for each in needed:
        by_meter.setdefault(each.meter, {}).setdefault(each.period, []).append(each.subscriber)
    found: dict[Needed, Sequence[Behind]] = {}
    for meter, by_period in by_meter.items():
        definition = definitions[meter]
        if definition.aggregation in _ADDED:
            for chain in chains(by_period):
                found |= await _added(
                    snapshot, definition, {period: by_period[period] for period in chain}, asked, held
                )
        else:
            for period, subscribers in by_period.items():
                found |= await _stated(snapshot, definition, subscribers, period, asked, held)
    return found


def by_subscriber(usage: Mapping[Needed, Sequence[Behind]]) -> Mapping[Subscriber, UsageBehind]:
    """The same, as the statements of each subscription take it."""
    behind: dict[Subscriber, dict[tuple[str, rating.Period], Sequence[Behind]]] = {}
    for needed, used in usage.items():
        behind.setdefault(needed.subscriber, {})[needed.meter, needed.period] = used
    return behind


# ---------------------------------------------------------------- what is added up


async def _added(
    snapshot: Snapshot,
    definition: Definition,
    by_period: Mapping[rating.Period, Collection[Subscriber]],
    asked: rating.Period,
    held: _Held,
) -> dict[Needed, Sequence[Behind]]:
    """Of periods in a row, each cut in up to three where the asked period starts and ends inside it."""
    places: dict[tuple[datetime, datetime], tuple[rating.Period, int]] = {}
    for period in by_period:
        cuts = [at for at in (asked.start, asked.end) if period.start < at < period.end]
        for start, end in pairwise([period.start, *cuts, period.end]):
            places[start, end] = period, 0 if end <= asked.start else 1 if end <= asked.end else 2
    segments = [metered_period(rating.Period(*bounds)) for bounds in places]
    whole = rating.Period(segments[0].start, segments[-1].end)
    subscribers = {each for of in by_period.values() for each in of}
    question = metered(_question(whole, _GROUPED, subscribers), definition)
    wanted: dict[tuple[Key, rating.Period], Subscriber] = {
        ((each.account, each.subscription), period): each for period, of in by_period.items() for each in of
    }
    sums: dict[Needed, dict[Key, _Cut]] = {}
    try:
        async with aclosing(read_period_rows(snapshot, question, segments, LIMITS.export_rows_held_max)) as pages:
            async for rows in pages:
                for row in rows:
                    period, place = places[row.start, row.end]
                    subscriber = wanted.get((row.key[:2], period))
                    if subscriber is None:
                        continue  # an account may name what is another's subscription
                    by_key = sums.setdefault(Needed(subscriber, definition.key, period), {})
                    key = (*row.key, row.total.unit)
                    if key not in by_key:
                        held.take(1)
                        by_key[key] = [ZERO, ZERO, ZERO]
                    counts = definition.aggregation is Aggregation.COUNT
                    amount = Decimal(row.total.events) if counts else row.total.quantity
                    by_key[key][place] = add(by_key[key][place], amount)
    except InvalidInputError as error:
        raise _gone(whole, error) from error
    return {of: [_behind(key, cut) for key, cut in by_key.items()] for of, by_key in sums.items()}


def _behind(key: Key, cut: _Cut) -> Behind:
    before, inside, after = cut
    until_end = add(before, inside)
    return Behind(key, add(until_end, after), before, until_end)


# ---------------------------------------------------------------- what the meter states


async def _stated(
    snapshot: Snapshot,
    definition: Definition,
    subscribers: Collection[Subscriber],
    period: rating.Period,
    asked: rating.Period,
    held: _Held,
) -> dict[Needed, Sequence[Behind]]:
    """What the meter says of each combination from the period's start until its end, and until the asked bounds inside."""
    until: list[dict[Key, Decimal]] = []
    for end in (period.end, asked.start, asked.end):
        if end >= period.end and until:
            until.append(until[0])
        elif end <= period.start:
            until.append({})
        else:
            until.append(await _states(snapshot, definition, subscribers, rating.Period(period.start, end), held))
    found: dict[Needed, list[Behind]] = {}
    wanted: dict[Key, Subscriber] = {(each.account, each.subscription): each for each in subscribers}
    for key in dict.fromkeys(key for states in until for key in states):
        subscriber = wanted.get(key[:2])
        if subscriber is not None:
            whole, until_start, until_end = (states.get(key, ZERO) for states in until)
            of = Needed(subscriber, definition.key, period)
            found.setdefault(of, []).append(Behind(key, whole, until_start, until_end))
    return dict(found)


async def _states(
    snapshot: Snapshot,
    definition: Definition,
    subscribers: Collection[Subscriber],
    period: rating.Period,
    held: _Held,
) -> dict[Key, Decimal]:
    question = _question(period, GRAIN, subscribers)
    order = GroupOrder("KEY", descending=False)
    states: dict[Key, Decimal] = {}
    after = None
    has_next = True
    while has_next:
        try:
            await check_meter_retained(snapshot, definition, question)
            page = await read_meter_groups(snapshot, definition, question, order, LIMITS.export_rows_held_max, after)
        except InvalidInputError as error:
            raise _gone(period, error) from error
        held.take(len(page.groups))
        states |= {group.key: _state(group.figure) for group in page.groups}
        has_next = page.has_next
        after = After(page.groups[-1].key, None) if page.groups else None
    return states


def _state(figure: Figure) -> Decimal:
    stated = figure.exact if figure.unit_hours is None else figure.unit_hours
    return ZERO if stated is None else stated


def _question(period: rating.Period, group_by: tuple[Dimension, ...], subscribers: Iterable[Subscriber]) -> Question:
    pairs = list(subscribers)
    return Question(
        period=metered_period(period),
        zone_name="UTC",
        group_by=group_by,
        filters={
            Dimension.ACCOUNT: ValueFilter(tuple(sorted({each.account for each in pairs}))),
            Dimension.SUBSCRIPTION: ValueFilter(tuple(sorted({each.subscription for each in pairs}))),
        },
    )


def _gone(period: rating.Period, error: InvalidInputError) -> InvalidInputError:
    reasons = " ".join(issue.message for issue in error.issues)
    message = (
        f"Amounts from {instant_text(period.start)} to {instant_text(period.end)} are shared out by usage that is not kept "
        f"any more; ask for whole billing periods, by account and subscription only. {reasons}"
    )
    return InvalidInputError([InputIssue(("query", "period"), message)])
