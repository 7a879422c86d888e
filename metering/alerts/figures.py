"""What a rule looks at, read in one snapshot: every figure that may have crossed a bound, with late and corrected events."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

import msgspec

from metering.alerts.crossings import Seen
from metering.alerts.included import included_of
from metering.alerts.rules import AlertRule, Amount, IncludedShare, Quantity, Slice, StatementTotal
from metering.errors import ConflictError, TooLargeError
from metering.events import Dimension
from metering.limits import Limits
from metering.meters import Definition, both, find_meter, read_definitions
from metering.periods import Period, bucket_bounds, zone_of
from metering.questions import GroupOrder, ValueFilter
from metering.rated_meters import rated_meter
from metering.rollups.read import After
from metering.rollups.read_meter import check_meter_retained, read_meter_groups, read_meter_total
from metering.statements.charges import read_charges
from metering.statements.drafts import task_of
from metering.statements.figures import Needed, Subscriber, read_figures
from metering.statements.history import Due, FinalStatement, History
from metering.statements.kept import read_histories
from metering.statements.read import Statement, draft_all
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription, read_rated
from rating import periods as rating
from rating.exact import ZERO
from rating.meters import Figure
from rating.subscriptions import PlanPart, billing_period_at, parts_of

_LARGEST_FIRST: Final = GroupOrder("QUANTITY", descending=True)
_INSTANT: Final = timedelta.resolution

# The dimensions of a subject, each with its value.
Dimensions = tuple[tuple[str, str | None], ...]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Which figures are wanted: of the period that an instant lies in; or, of subscriptions, of their billing periods that were
    over at that instant and not yet at `over_since`, and of the last one in any case.

    All that may be at or above the rule's lower bound, and those of subjects that are named besides.
    """

    rule: AlertRule
    at: datetime
    over_since: datetime | None = None
    named: Collection[Dimensions] = ()

    def period(self, cut: Slice) -> Period:
        """The calendar period that is looked at."""
        start, end = bucket_bounds(Period(self.at, self.at + _INSTANT), zone_of(cut.time_zone), cut.bucket)[:2]
        return Period(start, end)


async def read_seen(snapshot: Snapshot, look: Look, limits: Limits) -> list[Seen]:
    """The figures that are wanted. Raises InvalidInputError, TooLargeError or TimeLimitError where they cannot be had."""
    measure = look.rule.definition.measure
    match measure:
        case Quantity():
            return await _quantities(snapshot, look, measure, limits)
        case Amount():
            return await _amounts(snapshot, look, measure, limits)
        case IncludedShare():
            return [each async for each in _included(snapshot, look, measure, limits)]
        case StatementTotal():
            return [each async for each in _statements(snapshot, look, measure, limits)]


# ---------------------------------------------------------------- calendar periods


async def _quantities(snapshot: Snapshot, look: Look, measure: Quantity, limits: Limits) -> list[Seen]:
    meter = await find_meter(snapshot, measure.meter)
    assert meter is not None, "a rule is put with a meter that is there, and meters are not deleted"
    definition, period = meter.definition, look.period(measure.slice)
    floor = look.rule.definition.bounds.resolve_below
    # What a question would be refused for is no figure either.
    await check_meter_retained(snapshot, definition, measure.slice.question(period, look.rule.accounts, limits))
    names = tuple(dimension.value for dimension in measure.slice.group_by)
    seen: dict[Dimensions, Seen] = {}
    if names:
        async for dimensions, value in _largest(snapshot, look, measure, definition, limits):
            if value < floor:
                break
            seen[dimensions] = Seen(dimensions=dimensions, period=period, value=value)
    for dimensions in (*look.named, *([] if names else [()])):
        if dimensions not in seen:
            value = await _value_of(snapshot, look, measure, definition, dimensions, limits)
            seen[dimensions] = Seen(dimensions=dimensions, period=period, value=value)
    return list(seen.values())


async def _largest(
    snapshot: Snapshot, look: Look, measure: Quantity, definition: Definition, limits: Limits
) -> AsyncIterator[tuple[Dimensions, Decimal]]:
    """Subjects with their figures, the largest first, a page at a time."""
    question = measure.slice.question(look.period(measure.slice), look.rule.accounts, limits)
    names = tuple(dimension.value for dimension in measure.slice.group_by)
    after, count = None, 0
    while True:
        page = await read_meter_groups(snapshot, definition, question, _LARGEST_FIRST, limits.page_rows_max, after)
        for group in page.groups:
            if group.figure.rounded is not None:
                yield tuple(zip(names, group.key, strict=True)), group.figure.rounded
        count += len(page.groups)
        if not page.has_next:
            return
        if count >= limits.alert_subjects_max:
            message = (
                f"{limits.alert_subjects_max:,} subjects and more are at the bound; a rule holds no more. "
                "Raise the bound, or narrow the rule."
            )
            raise TooLargeError(page.group_count, limits.alert_subjects_max, message=message)
        after = After(page.groups[-1].key, page.groups[-1].order_value)


async def _value_of(
    snapshot: Snapshot,
    look: Look,
    measure: Quantity,
    definition: Definition,
    dimensions: Dimensions,
    limits: Limits,
) -> Decimal:
    """The figure of one subject; zero where nothing was measured."""
    question = measure.slice.question(look.period(measure.slice), look.rule.accounts, limits)
    filters = dict(question.filters)
    for name, value in dimensions:
        dimension, own = Dimension(name), ValueFilter((value,))
        filters[dimension] = own if dimension not in filters else both(filters[dimension], own)
    narrowed = msgspec.structs.replace(question, filters=filters)
    figure = await read_meter_total(snapshot, definition, narrowed)
    return ZERO if figure.rounded is None else figure.rounded


async def _amounts(snapshot: Snapshot, look: Look, measure: Amount, limits: Limits) -> list[Seen]:
    period = look.period(measure.slice)
    question = measure.slice.question(period, look.rule.accounts, limits)
    names = tuple(dimension.value for dimension in measure.slice.group_by)
    of = partial(Seen, period=period, whole=measure.budget)
    seen: dict[Dimensions, Seen] = {
        dimensions: of(dimensions=dimensions, value=ZERO) for dimensions in (*look.named, *([] if names else [()]))
    }
    for group in (await read_charges(snapshot, question, limits)).groups:
        dimensions = tuple(zip(names, group.key, strict=True))
        for money in group.totals:
            if money.currency.code == measure.currency_code:
                seen[dimensions] = of(dimensions=dimensions, value=money.amount)
    return list(seen.values())


# ---------------------------------------------------------------- billing periods


async def _subscriptions(snapshot: Snapshot, look: Look, limits: Limits) -> AsyncIterator[Sequence[RatedSubscription]]:
    """The subscriptions that the rule is about, some at a time."""
    last, has_more = None, True
    while has_more:
        page, has_more = await read_rated(
            snapshot,
            limits.statement_page_subscriptions,
            last,
            until=look.at + limits.occurred_ahead_max,
            accounts=look.rule.accounts,
        )
        if page:
            yield page
            last = page[-1].key


def _instants_of(look: Look, subscription: RatedSubscription) -> Iterator[datetime]:
    """An instant of each billing period that is looked at."""
    billing = billing_period_at(subscription.terms, look.at)
    if look.over_since is None:
        if billing is not None:
            yield look.at
        return
    ended_at = subscription.terms.ends_at if billing is None else billing.served.start
    is_last = True
    while ended_at is not None and ended_at <= look.at and (is_last or ended_at > look.over_since):
        billing = billing_period_at(subscription.terms, ended_at - _INSTANT)
        if billing is None:
            return
        yield ended_at - _INSTANT
        ended_at, is_last = billing.served.start, False


def _dimensions_of(subscriber: Subscriber) -> Dimensions:
    return ((Dimension.ACCOUNT.value, subscriber.account), (Dimension.SUBSCRIPTION.value, subscriber.subscription))


def _metered(period: rating.Period) -> Period:
    return Period(period.start, period.end)


async def _included(snapshot: Snapshot, look: Look, measure: IncludedShare, limits: Limits) -> AsyncIterator[Seen]:
    definitions = await read_definitions(snapshot, [measure.meter])
    meter = rated_meter(definitions[measure.meter])
    async for page in _subscriptions(snapshot, look, limits):
        asked: list[tuple[Subscriber, rating.Period, tuple[PlanPart, ...]]] = []
        for subscription, at in ((each, at) for each in page for at in _instants_of(look, each)):
            billing = billing_period_at(subscription.terms, at)
            if billing is not None:
                subscriber = Subscriber(subscription.account, subscription.key)
                asked.append((subscriber, billing.served, parts_of(subscription.terms, billing)))
        needed = [
            Needed(subscriber, measure.meter, part.period)
            for subscriber, _, parts in asked
            for part in parts
            if any(price.meter == measure.meter and price.included_quantity for price in part.plan.prices)
        ]
        read = await read_figures(snapshot, needed, definitions)
        figures: dict[Subscriber, dict[rating.Period, Figure]] = {}
        for each, figure in read.figures.items():
            figures.setdefault(each.subscriber, {})[each.period] = figure
        for subscriber, period, parts in asked:
            found = included_of(parts, figures.get(subscriber, {}), meter)
            # Nothing is a share of nothing.
            if found is not None and found.included > ZERO:
                yield Seen(
                    dimensions=_dimensions_of(subscriber),
                    period=_metered(period),
                    value=found.used,
                    whole=found.included,
                )


async def _statements(snapshot: Snapshot, look: Look, measure: StatementTotal, limits: Limits) -> AsyncIterator[Seen]:
    async for page in _subscriptions(snapshot, look, limits):
        of_currency = [each for each in page if each.currency_code == measure.currency_code]
        dues = []
        for history in await read_histories(snapshot, of_currency):
            for at in _instants_of(look, history.subscription):
                due = history.due_at(at)
                if due is not None and due.billing is not None:
                    dues.append((history, due))
        for statement in await _known(snapshot, dues):
            yield Seen(
                dimensions=_dimensions_of(Subscriber(statement.account, statement.subscription)),
                period=_metered(statement.period),
                value=statement.total.amount,
                whole=measure.budget,
            )


async def _known(snapshot: Snapshot, dues: Sequence[tuple[History, Due]]) -> list[Statement]:
    """Final statements as they are, drafts as of now; without those that cannot be computed any more."""
    finals: Mapping[int, FinalStatement] = {
        place: final for place, (history, due) in enumerate(dues) if (final := history.final_of(due)) is not None
    }
    tasks = [task_of(*each) for place, each in enumerate(dues) if place not in finals]
    drafts = [draft for draft in await draft_all(snapshot, tasks) if not isinstance(draft, ConflictError)]
    return [*finals.values(), *drafts]
