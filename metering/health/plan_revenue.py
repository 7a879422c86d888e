"""What plans bring in: what was charged on each in a period, to how many, for how much usage, and how it was kept.

Amounts are the charges of the period by the plan of their lines, so those of all plans add up to them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from decimal import Decimal
from enum import Enum
from itertools import groupby
from typing import Final

import msgspec

from metering.aggregations import Aggregation
from metering.errors import InputIssue, InvalidInputError
from metering.events import in_utc
from metering.health.adoption import service_accounts
from metering.health.gathering import ask, within
from metering.health.revenue import share_of
from metering.limits import Limits
from metering.meters import Definition, read_definitions
from metering.periods import Period
from metering.questions import ask as ask_charges
from metering.statements.charges import sum_charges
from metering.statements.figures import Needed, Subscriber, read_figures
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subscriptions import RatedSubscription, read_rated
from rating import periods as rating
from rating.charges import Charge
from rating.exact import ZERO, add, cut, subtract, total
from rating.lines import LineKind
from rating.money import Currency, Money, rounded
from rating.periods import PRORATED_DIGITS

# What a unit came to is cut after so many digits.
_PRICE_DIGITS: Final = 6
# Of these the figures of periods and of subscriptions add up.
_ADDING: Final = frozenset({Aggregation.SUM, Aggregation.COUNT})


class Kind(Enum):
    """What an amount is owed for."""

    RECURRING = "RECURRING"
    USAGE = "USAGE"
    ADJUSTMENT = "ADJUSTMENT"


class MeterRevenue(msgspec.Struct, frozen=True):
    """What a plan's usage of a meter came to; the quantity is None where figures of the meter do not add up, or are gone."""

    meter: str
    amount: Money
    quantity: Decimal | None

    @property
    def unit_price(self) -> Decimal | None:
        """What a unit came to, whatever was included or discounted."""
        return cut(self.amount.amount, self.quantity, _PRICE_DIGITS) if self.quantity and self.quantity > ZERO else None


class Kept(msgspec.Struct, frozen=True):
    """What subscriptions that were on a plan as the period began bring in a month then, and as it ends on whichever plan."""

    start: Decimal = ZERO
    lost: Decimal = ZERO
    end: Decimal = ZERO

    @property
    def gross(self) -> Decimal | None:
        """What is left of the start without what they added; 1 at most."""
        return share_of(subtract(self.start, self.lost), self.start)

    @property
    def net(self) -> Decimal | None:
        """What they bring at the end."""
        return share_of(self.end, self.start)


class PlanRevenue(msgspec.Struct, frozen=True, kw_only=True):
    """What was charged on a plan in a currency; accounts are those that were charged, users those on its subscriptions."""

    plan: str
    currency: Currency
    amounts: Mapping[Kind, Money]
    meters: tuple[MeterRevenue, ...]
    accounts: int
    users: int
    kept: Kept

    @property
    def total(self) -> Money:
        """All that was charged."""
        return _sum(self.amounts.values(), self.currency)

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """By currency, the most first; those alike by key."""
        return self.currency.code, self.total.amount.copy_negate(), self.plan

    def for_each(self, count: int) -> Money | None:
        """What comes of it for each of so many, rounded once; None of nobody."""
        return rounded(cut(self.total.amount, Decimal(count), PRORATED_DIGITS), self.currency) if count else None


async def read_plan_revenue(snapshot: Snapshot, period: Period, limits: Limits) -> list[PlanRevenue]:
    """Every plan that anything was charged on, in order.

    Raises InvalidInputError, paths lead from the argument `period`; TooLargeError where it is more than is held.
    """
    sums = await _charged(snapshot, period, limits)
    sold = await snapshot.fetch(sql("revenue.list_plans"), [within(snapshot, None), period.end])
    users = await _users(snapshot, period, sold)
    quantities = await _quantities(snapshot, period, limits)
    kept = await _kept(snapshot, period)
    by_plan: dict[tuple[str, Currency], list[tuple[Kind, str | None, str, Money]]] = {}
    for (plan, kind, meter, account), money in sums:
        by_plan.setdefault((plan, money.currency), []).append((kind, meter, account, money))
    found = []
    for (plan, currency), rows in by_plan.items():
        charged = {meter for kind, meter, _, _ in rows if kind is Kind.USAGE and meter is not None}
        used = {meter for (of, meter), quantity in quantities.items() if of == plan and quantity}
        found.append(
            PlanRevenue(
                plan=plan,
                currency=currency,
                amounts={kind: _sum([money for each, _, _, money in rows if each is kind], currency) for kind in Kind},
                meters=tuple(
                    MeterRevenue(
                        meter,
                        _sum([money for kind, of, _, money in rows if kind is Kind.USAGE and of == meter], currency),
                        quantities.get((plan, meter)),
                    )
                    for meter in sorted(charged | used)
                ),
                accounts=len({account for _, _, account, _ in rows}),
                users=users.get(plan, 0),
                kept=kept.get(plan, Kept()),
            )
        )
    return sorted(found, key=lambda each: each.order)


def totals_of(found: Iterable[PlanRevenue]) -> list[Money]:
    """What plans come to, by currency."""
    sums: dict[Currency, Money] = {}
    for each in found:
        sums[each.currency] = _sum(
            [*([sums[each.currency]] if each.currency in sums else []), each.total], each.currency
        )
    return [sums[currency] for currency in sorted(sums, key=lambda currency: currency.code)]


def _sum(amounts: Iterable[Money], currency: Currency) -> Money:
    return Money(add(currency.zero, total(each.amount for each in amounts)), currency)


_Key = tuple[str, Kind, str | None, str]


async def _charged(snapshot: Snapshot, period: Period, limits: Limits) -> list[tuple[_Key, Money]]:
    """Charges by plan, kind, meter and account."""
    kinds: dict[str | None, Kind] = {kind.value: kind for kind in Kind}
    try:
        question = ask_charges(period=period, zone_name="UTC", group_by=(), filters={}, limits=limits)
        sums = await sum_charges(snapshot, question, limits, _key_of)
    except InvalidInputError as error:
        # Charges are asked for by a query, which has a period.
        issues = [InputIssue(issue.path[1:], issue.message) for issue in error.issues]
        raise InvalidInputError(issues) from error
    found: list[tuple[_Key, Money]] = []
    for (plan, kind, meter, account), amounts in sums.items():
        assert plan is not None, "a line is of a plan"
        assert account is not None, "and of an account's statement"
        found += [((plan, kinds[kind], meter, account), money) for money in amounts.values()]
    return found


def _key_of(charge: Charge) -> tuple[str | None, ...]:
    line = charge.line
    kind = Kind.RECURRING if charge.recurring else Kind.USAGE
    if line.kind is LineKind.ADJUSTMENT:
        kind = Kind.ADJUSTMENT
    return line.origin.plan, kind.value, line.origin.meter, charge.key[0]


async def _users(snapshot: Snapshot, period: Period, sold: Sequence[Mapping[str, str]]) -> Mapping[str, int]:
    """How many users were active on the subscriptions of each plan, on the UTC days that touch the period."""
    last_on = (period.end - timedelta.resolution).astimezone(UTC).date()
    question = await ask(snapshot, None, last_on + timedelta(days=1))
    rows = await question.rows(
        sql("revenue.count_users"),
        *(question.accounts, question.as_of, period.start.astimezone(UTC).date(), *question.rollups),
        *await service_accounts(question),
        *([row[name] for row in sold] for name in ("account", "key", "plan")),
    )
    return {row["plan"]: row["users"] for row in rows}


async def _kept(snapshot: Snapshot, period: Period) -> Mapping[str, Kept]:
    """By the plan as the period began."""
    accounts = within(snapshot, None)
    sold = await snapshot.fetch(sql("revenue.list_plans"), [accounts, period.start + timedelta.resolution])
    plans = {row["key"]: row["plan"] for row in sold}
    found: dict[str, Kept] = {}
    for row in await snapshot.fetch(sql("revenue.list_amounts"), [accounts, [period.start, period.end]]):
        start, end = (amount or ZERO for amount in row["amounts"])
        if start and row["key"] in plans:
            known = found.get(plans[row["key"]], Kept())
            lost = max(subtract(start, end), ZERO)
            found[plans[row["key"]]] = Kept(add(known.start, start), add(known.lost, lost), add(known.end, end))
    return found


# ---------------------------------------------------------------- quantities


async def _quantities(snapshot: Snapshot, period: Period, limits: Limits) -> Mapping[tuple[str, str], Decimal]:
    """What subscriptions used of the meters of the plan that they were on, by plan and meter, while they were."""
    until = min(period.end, in_utc((await snapshot.horizon()).as_of) + timedelta.resolution)
    sums: dict[tuple[str, str], Decimal] = {}
    gone: set[tuple[str, str]] = set()
    last, has_more = None, True
    while has_more:
        page, has_more = await read_rated(snapshot, limits.statement_page_subscriptions, last, until=until)
        last = page[-1].key if page else None
        asked = [each for subscription in page for each in _needed(subscription, period)]
        definitions = await read_definitions(snapshot, {each.meter for _, each in asked})
        added = [(plan, each) for plan, each in asked if _adds_up(definitions[each.meter])]
        read = await read_figures(snapshot, {each for _, each in added}, definitions)
        for plan, each in added:
            place = plan, each.meter
            if each in read.unreadable:
                gone.add(place)
            else:
                sums[place] = add(sums.get(place, ZERO), read.figures[each].quantity)
    return {place: quantity for place, quantity in sums.items() if place not in gone}


def _needed(subscription: RatedSubscription, period: Period) -> Iterator[tuple[str, Needed]]:
    """The first plan holds from before the subscription starts, and the last for ever: then periods are the same for many."""
    terms = subscription.terms
    if terms.ends_at is not None and terms.ends_at <= period.start:
        return
    subscriber = Subscriber(subscription.account, subscription.key)
    # Versions of one plan follow each other at the beginnings of billing periods, which are others for each subscription.
    held = [(plan, list(phases)) for plan, phases in groupby(terms.phases, key=lambda phase: phase.plan.key)]
    for place, (plan, phases) in enumerate(held):
        start = max(phases[0].start, period.start) if place else period.start
        end = phases[-1].end if place + 1 < len(held) else None
        end = period.end if end is None else min(end, period.end)
        if start < end:
            meters = {price.meter for phase in phases for price in phase.plan.prices if price.meter is not None}
            for meter in sorted(meters):
                yield plan, Needed(subscriber, meter, rating.Period(start, end))


def _adds_up(definition: Definition) -> bool:
    return definition.aggregation in _ADDING
