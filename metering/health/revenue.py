"""Recurring revenue over a period, in each currency: what came, what went, and whom it went with.

It is of what contracts say, not of what was used or billed. A customer is an account; several subscriptions of one are one
customer, who has grown or shrunk by what they bring together.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.health.gathering import within
from metering.limits import Limits
from metering.periods import Period, day_start, zone_of
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from rating.billing_periods import BillingInterval, period_at
from rating.exact import ZERO, subtract, total

_ZERO: Final = ZERO
# A day that begins a week, a month, a quarter and a year: all of them are counted from it.
_ANCHOR: Final = date(2001, 1, 1)
# A trial that has just ended may still be decided on.
TRIAL_GRACE_DAYS: Final = 14


class Revenue(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts of a month as a period began and ended, and what moved them; customers by whether they brought in anything.

    end = start + new + expansion - contraction - churned. Shares are None where there was nothing to begin with.
    """

    currency_code: str
    start: Decimal = _ZERO
    new: Decimal = _ZERO
    expansion: Decimal = _ZERO
    contraction: Decimal = _ZERO
    churned: Decimal = _ZERO
    end: Decimal = _ZERO
    customers_at_start: int = 0
    customers_new: int = 0
    customers_churned: int = 0
    # Subscriptions of which nobody told an amount.
    unknown: int = 0

    @property
    def yearly(self) -> Decimal:
        """What the end comes to in a year (ARR)."""
        return 12 * self.end

    @property
    def growth(self) -> Decimal | None:
        """By which share the end is more than the start."""
        return share_of(self.end - self.start, self.start)

    @property
    def gross_retention(self) -> Decimal | None:
        """What is left of the start without what customers added (GRR); 1 at most."""
        return share_of(self.start - self.contraction - self.churned, self.start)

    @property
    def net_retention(self) -> Decimal | None:
        """What the customers of the start bring at the end (NRR)."""
        return share_of(self.start + self.expansion - self.contraction - self.churned, self.start)

    @property
    def customer_churn(self) -> Decimal | None:
        """The share of customers who bring nothing any more."""
        return share_of(Decimal(self.customers_churned), Decimal(self.customers_at_start))

    def customer_value(self, margin: Decimal) -> Decimal | None:
        """What a customer brings in a life (CLV): an average amount by margin, by churn of periods like this; None at none."""
        churn = self.customer_churn
        if not churn:
            return None
        return self.start / self.customers_at_start * margin / churn


class Trials(msgspec.Struct, frozen=True):
    """Trials that began in a period and are decided, and how many are paid for since."""

    trials: int
    converted: int

    @property
    def conversion(self) -> Decimal | None:
        """The share that is paid for."""
        return share_of(Decimal(self.converted), Decimal(self.trials))


class RevenueChange(Enum):
    """What became of a customer's amount between two instants."""

    NEW = "NEW"
    EXPANSION = "EXPANSION"
    CONTRACTION = "CONTRACTION"
    CHURNED = "CHURNED"


class RevenueCustomer(msgspec.Struct, frozen=True):
    """A customer whose amount of a month in a currency is another one at the end of a period than at its start."""

    currency_code: str
    account: str
    change: RevenueChange
    start: Decimal
    end: Decimal

    @property
    def difference(self) -> Decimal:
        """By how much it is more, or (below zero) less."""
        return subtract(self.end, self.start)

    @property
    def order(self) -> tuple[str, Decimal, str]:
        """Whose amount moved most first, whichever way; those alike by key."""
        return self.currency_code, self.difference.copy_abs().copy_negate(), self.account


class RevenueCourse(msgspec.Struct, frozen=True):
    """What customers bring in each month at some instants, by currency and account; and of how many subscriptions it is unknown
    at an instant or the next one.
    """

    instants: Sequence[datetime]
    amounts: Mapping[str, Mapping[str, Sequence[Decimal]]]
    unknown: Mapping[str, Sequence[int]]

    @property
    def currencies(self) -> list[str]:
        """In order."""
        return sorted(self.amounts)

    def revenue(self, place: int, currency: str) -> Revenue:
        """What moved from an instant to the next one."""
        customers = [(of[place], of[place + 1]) for of in self.amounts[currency].values()]
        return _revenue(currency, customers, self.unknown[currency][place])

    def customers(self, place: int, currency: str) -> list[RevenueCustomer]:
        """Whose amount moved, in order. Their differences add up to that of end and start."""
        found = [
            RevenueCustomer(currency, account, _change_of(of[place], of[place + 1]), of[place], of[place + 1])
            for account, of in self.amounts[currency].items()
            if of[place] != of[place + 1]
        ]
        return sorted(found, key=lambda each: each.order)


async def read_course(
    snapshot: Snapshot, accounts: Sequence[str] | None, instants: Sequence[datetime]
) -> RevenueCourse:
    """What customers bring in at these instants, in order of time. Accounts of None are all; the snapshot reaches them."""
    rows = await snapshot.fetch(sql("revenue.list_amounts"), [within(snapshot, accounts), instants])
    told: dict[str, dict[str, list[list[Decimal]]]] = {}
    unknown: dict[str, list[int]] = {}
    for row in rows:
        currency, amounts = row["currency_code"], row["amounts"]
        told.setdefault(currency, {}).setdefault(row["account"], []).append([each or _ZERO for each in amounts])
        missing = [start is None or end is None for start, end in pairwise(amounts)]
        before = unknown.get(currency, [0] * len(missing))
        unknown[currency] = [count + is_missing for count, is_missing in zip(before, missing, strict=True)]
    sums = {
        currency: {account: [total(at) for at in zip(*lists, strict=True)] for account, lists in of.items()}
        for currency, of in told.items()
    }
    return RevenueCourse(instants, sums, unknown)


async def read_revenue(snapshot: Snapshot, accounts: Sequence[str] | None, period: Period) -> Sequence[Revenue]:
    """Revenue over a period, by currency, in order of it. Accounts of None are all; the snapshot reaches them."""
    course = await read_course(snapshot, accounts, (period.start, period.end))
    return [course.revenue(0, currency) for currency in course.currencies]


def instants_of(period: Period, zone_name: str, interval: BillingInterval, limits: Limits) -> list[datetime]:
    """A period's start, the bounds of the calendar within it, and its end.

    Raises InvalidInputError with every fault; paths lead from the arguments of the field.
    """
    issues = []
    if period.start >= period.end:
        issues.append(InputIssue(("period", "to"), "`to` must be later than `from`; a period is half-open [from, to)."))
    if not (limits.asked_from_min <= period.start and period.end <= limits.asked_to_max):
        message = f"A period lies between {limits.asked_from_min:%Y-%m-%d} and {limits.asked_to_max:%Y-%m-%d}."
        issues.append(InputIssue(("period",), message))
    try:
        zone = zone_of(zone_name)
    except KeyError:
        message = f"{zone_name!r:.60} is not an IANA time zone such as Europe/Berlin."
        raise InvalidInputError([*issues, InputIssue(("timeZone",), message)]) from None
    if issues:
        raise InvalidInputError(issues)
    anchor = day_start(_ANCHOR, zone)
    instants = [period.start]
    while instants[-1] < period.end and len(instants) <= limits.revenue_periods_max:
        instants.append(min(period_at(instants[-1], anchor, zone, interval).end, period.end))
    if instants[-1] < period.end:
        message = f"This is more than {limits.revenue_periods_max} periods of a {interval.value}; ask for longer ones."
        raise InvalidInputError([InputIssue(("interval",), message)])
    return instants


async def read_trials(snapshot: Snapshot, accounts: Sequence[str] | None, period: Period) -> Trials:
    """Trials that began in a period, and had ended two weeks before its snapshot."""
    decided_by = (await snapshot.horizon()).as_of - timedelta(days=TRIAL_GRACE_DAYS)
    (row,) = await snapshot.fetch(
        sql("revenue.count_trials"),
        [within(snapshot, accounts), period.start, period.end, decided_by, TRIAL_GRACE_DAYS],
    )
    return Trials(row["trials"], row["converted"])


def _change_of(start: Decimal, end: Decimal) -> RevenueChange:
    if not start or not end:
        return RevenueChange.CHURNED if start else RevenueChange.NEW
    return RevenueChange.EXPANSION if end > start else RevenueChange.CONTRACTION


def _revenue(currency: str, customers: Sequence[tuple[Decimal, Decimal]], unknown: int) -> Revenue:
    """What customers, each with an amount at the start and at the end, come to."""
    stayed = [(start, end) for start, end in customers if start and end]
    return Revenue(
        currency_code=currency,
        start=total(start for start, _ in customers),
        new=total(end for start, end in customers if not start),
        expansion=total(subtract(end, start) for start, end in stayed if end > start),
        contraction=total(subtract(start, end) for start, end in stayed if end < start),
        churned=total(start for start, end in customers if not end),
        end=total(end for _, end in customers),
        customers_at_start=sum(start > 0 for start, _ in customers),
        customers_new=sum(not start and end > 0 for start, end in customers),
        customers_churned=sum(start > 0 and not end for start, end in customers),
        unknown=unknown,
    )


def share_of(part: Decimal, whole: Decimal) -> Decimal | None:
    """One by the other; None where there is nothing to share."""
    return part / whole if whole else None
