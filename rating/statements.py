"""What a subscription owes for a billing period: its prices rated, rounded, and added up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec

from rating.exact import ZERO, percent_of, subtract, total
from rating.lines import Line, LineKind, Origin
from rating.meters import NO_USAGE, Figure, Meter
from rating.money import Currency, Money, currency_of, sum_of
from rating.periods import WHOLE, Period, PeriodShare
from rating.plans import Plan, PlanPrice, PriceTiming
from rating.prices import is_recurring
from rating.rate import SeatStretch, Step, recurring_steps, usage_steps
from rating.share import settle
from rating.subscriptions import BillingPeriod, PlanPart, Subscription, parts_of, seat_stretches

# What each meter shows for each period that it is asked for.
Figures: TypeAlias = Mapping[tuple[str, Period], Figure]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A billing period's lines, in the order of the plans' effect and of their prices, and what they add up to."""

    period: BillingPeriod
    plans: tuple[Plan, ...]
    lines: tuple[Line, ...]
    total: Money


class _Priced(msgspec.Struct):
    """A price within a part of the period, with its exact steps and what is owed for each."""

    part: PlanPart
    price: PlanPrice
    steps: list[Step]
    amounts: list[Money]


def figures_needed(parts: Iterable[PlanPart]) -> tuple[tuple[str, Period], ...]:
    """Which meters have to be read, each for which period; every pair once."""
    pairs = {(price.meter, part.period): None for part in parts for price in part.plan.prices}
    return tuple((meter, period) for meter, period in pairs if meter is not None)


def statement_of(
    subscription: Subscription, period: BillingPeriod, figures: Figures, meters: Mapping[str, Meter]
) -> Statement:
    """Rate a billing period of a subscription whose plans have passed validate() and are in one currency.

    A meter that has no figure has shown nothing. Adjustments of other periods are not among the lines.
    """
    parts = parts_of(subscription, period)
    currency = _currency(subscription, period)
    priced = [
        _Priced(part, price, _steps(price, part, subscription, period, figures, meters), [])
        for index, part in enumerate(parts)
        for price in part.plan.prices
        if not _is_owed_before(price, part, parts[:index])
    ]
    _settle_prices(priced, currency)
    of_parts = [[line for each in priced if each.part is part for line in _lines_of(each)] for part in parts]
    of_parts = _with(parts, of_parts, _discount_lines(subscription.discount_percent, parts, of_parts, currency))
    of_parts = _with(parts, of_parts, _minimum_lines(parts, of_parts, currency))
    lines = [line for own in of_parts for line in own]
    plans = {(part.plan.key, part.plan.version): part.plan for part in parts}
    return Statement(
        period=period,
        plans=tuple(plans.values()),
        lines=tuple(lines),
        total=sum_of((line.amount for line in lines), currency),
    )


def rate_price(
    price: PlanPrice, figure: Figure, currency: Currency, origin: Origin, period: Period
) -> tuple[Line, ...]:
    """One price on one figure for a whole period: a preview, or one line of a simulation. Seats are the quantity."""
    if is_recurring(price.price):
        steps = recurring_steps(price, (SeatStretch(figure.quantity, period, WHOLE),))
    else:
        steps = usage_steps(price, figure)
    return tuple(_lines(price, steps, settle([step.exact_amount for step in steps], currency), origin, period))


def _is_owed_before(price: PlanPrice, part: PlanPart, before: Sequence[PlanPart]) -> bool:
    """Whether a recurring price that is owed in full was, for an earlier part: it is the same price still."""
    return is_recurring(price.price) and not price.prorated and any(_has(each, price, part) for each in before)


def _has(other: PlanPart, price: PlanPrice, part: PlanPart) -> bool:
    """Whether another part has this price of the same plan, as it is."""
    return other.plan.key == part.plan.key and price in other.plan.prices


def _steps(
    price: PlanPrice,
    part: PlanPart,
    subscription: Subscription,
    period: BillingPeriod,
    figures: Figures,
    meters: Mapping[str, Meter],
) -> list[Step]:
    if price.meter is None:
        # What is owed in full, for the most seats, is owed once for all the parts that have the price.
        parts = (
            [part] if price.prorated else [each for each in parts_of(subscription, period) if _has(each, price, part)]
        )
        seats = [stretch for each in parts for stretch in seat_stretches(subscription, each, period)]
        return recurring_steps(price, seats, part.share)
    figure, meter = figures.get((price.meter, part.period), NO_USAGE), meters[price.meter]
    return usage_steps(price, figure, part.share, meter.rounding, is_level=meter.is_level)


def _settle_prices(priced: Sequence[_Priced], currency: Currency) -> None:
    """Round each price once. A recurring price that a new version leaves as it is counts as one price over the period,
    so that its parts add up to the whole in minor units too.
    """
    groups: dict[object, list[_Priced]] = {}
    for index, each in enumerate(priced):
        same = (each.part.plan.key, each.price) if is_recurring(each.price.price) else index
        groups.setdefault(same, []).append(each)
    for group in groups.values():
        steps = [step for each in group for step in each.steps]
        prorated = any(step.share != WHOLE for step in steps)
        amounts = iter(settle([step.exact_amount for step in steps], currency, prorated=prorated))
        for each in group:
            each.amounts = [next(amounts) for _ in each.steps]


def _lines_of(each: _Priced) -> Iterator[Line]:
    plan, price = each.part.plan, each.price
    origin = Origin(plan=plan.key, plan_version=plan.version, price=price.key, meter=price.meter)
    return _lines(price, each.steps, each.amounts, origin, each.part.period)


def _lines(
    price: PlanPrice, steps: Iterable[Step], amounts: Iterable[Money], origin: Origin, period: Period
) -> Iterator[Line]:
    in_advance = price.timing is PriceTiming.IN_ADVANCE
    for step, amount in zip(steps, amounts, strict=True):
        own = step.period or period
        yield Line(
            origin=origin,
            kind=step.kind,
            step=step.name,
            period=own,
            due_at=own.start if in_advance else own.end,
            exact_amount=step.exact_amount,
            amount=amount,
            tier=step.tier,
            quantity=step.quantity,
            unit_price=step.unit_price,
            share=step.share,
        )


def _discount_lines(
    percent: Decimal, parts: Sequence[PlanPart], of_parts: Sequence[Sequence[Line]], currency: Currency
) -> list[Line]:
    """The subscription's discount: on what recurring and usage prices come to, without what fills up to a minimum."""
    if not percent:
        return []
    exact = [
        percent_of(percent, total(line.amount.amount for line in lines if line.kind is not LineKind.MINIMUM))
        for lines in of_parts
    ]
    amounts = settle([amount.copy_negate() for amount in exact], currency)
    return [
        _plan_line(part, LineKind.DISCOUNT, amount.copy_negate(), share)
        for part, amount, share in zip(parts, exact, amounts, strict=True)
        if amount
    ]


def _minimum_lines(parts: Sequence[PlanPart], of_parts: Sequence[Sequence[Line]], currency: Currency) -> list[Line]:
    """What is missing to the plan's minimum for each part of the period, after discounts. A minimum that a new version
    leaves as it is is rounded once, so that its parts do not come to more than the whole.
    """
    missing: dict[tuple[str, Decimal], list[tuple[PlanPart, Decimal]]] = {}
    for part, lines in zip(parts, of_parts, strict=True):
        minimum = part.plan.minimum_amount
        if minimum is not None:
            amount = subtract(part.share.of(minimum), total(line.amount.amount for line in lines))
            if amount > ZERO:
                missing.setdefault((part.plan.key, minimum), []).append((part, amount))
    return [
        _plan_line(part, LineKind.MINIMUM, exact, amount)
        for group in missing.values()
        for (part, exact), amount in zip(
            group, settle([exact for _, exact in group], currency, prorated=True), strict=True
        )
    ]


def _with(parts: Sequence[PlanPart], of_parts: Sequence[Sequence[Line]], added: Sequence[Line]) -> list[list[Line]]:
    """The lines of each part, and behind them those that are added to it."""
    return [
        [*own, *(line for line in added if line.period == part.period)]
        for part, own in zip(parts, of_parts, strict=True)
    ]


def _plan_line(part: PlanPart, kind: LineKind, exact: Decimal, amount: Money, share: PeriodShare = WHOLE) -> Line:
    return Line(
        origin=Origin(plan=part.plan.key, plan_version=part.plan.version),
        kind=kind,
        step=kind.value.lower(),
        period=part.period,
        due_at=part.period.end,
        exact_amount=exact,
        amount=amount,
        share=share,
    )


def _currency(subscription: Subscription, period: BillingPeriod) -> Currency:
    """The currency of the plan that applies where the period begins, also while its trial lasts."""
    codes = [
        phase.plan.currency_code
        for phase in subscription.phases
        if phase.start < period.served.end and (phase.end is None or phase.end > period.served.start)
    ]
    assert len(set(codes)) == 1, "the plans of one period are in one currency; phase_faults() says where they are not"
    currency = currency_of(codes[0])
    assert currency is not None, "validate() lets no plan pass whose currency has no minor unit"
    return currency
