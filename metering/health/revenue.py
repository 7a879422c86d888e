"""Recurring revenue over a period, in each currency: what came, what went, and whom it went with.

It is of what contracts say, not of what was used or billed. A customer is an account; several subscriptions of one are one
customer, who has grown or shrunk by what they bring together.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

import msgspec

from metering.health.gathering import within
from metering.periods import Period
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

_ZERO: Final = Decimal(0)
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
        return _share(self.end - self.start, self.start)

    @property
    def gross_retention(self) -> Decimal | None:
        """What is left of the start without what customers added (GRR); 1 at most."""
        return _share(self.start - self.contraction - self.churned, self.start)

    @property
    def net_retention(self) -> Decimal | None:
        """What the customers of the start bring at the end (NRR)."""
        return _share(self.start + self.expansion - self.contraction - self.churned, self.start)

    @property
    def customer_churn(self) -> Decimal | None:
        """The share of customers who bring nothing any more."""
        return _share(Decimal(self.customers_churned), Decimal(self.customers_at_start))

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
        return _share(Decimal(self.converted), Decimal(self.trials))


async def read_revenue(snapshot: Snapshot, accounts: Sequence[str] | None, period: Period) -> Sequence[Revenue]:
    """Revenue over a period, by currency, in order of it. Accounts of None are all; the snapshot reaches them."""
    rows = await snapshot.fetch(sql("revenue.list_amounts"), [within(snapshot, accounts), period.start, period.end])
    unknown: dict[str, int] = {}
    amounts: dict[tuple[str, str], list[Decimal]] = {}
    for row in rows:
        currency = row["currency_code"]
        start, end = row["amount_at_start"], row["amount_at_end"]
        unknown[currency] = unknown.get(currency, 0) + (start is None or end is None)
        sums = amounts.setdefault((currency, row["account"]), [_ZERO, _ZERO])
        sums[0] += start or _ZERO
        sums[1] += end or _ZERO
    return [
        _revenue(
            currency, [(start, end) for (of, _), (start, end) in amounts.items() if of == currency], unknown[currency]
        )
        for currency in sorted(unknown)
    ]


async def read_trials(snapshot: Snapshot, accounts: Sequence[str] | None, period: Period) -> Trials:
    """Trials that began in a period, and had ended two weeks before its snapshot."""
    decided_by = (await snapshot.horizon()).as_of - timedelta(days=TRIAL_GRACE_DAYS)
    (row,) = await snapshot.fetch(
        sql("revenue.count_trials"),
        [within(snapshot, accounts), period.start, period.end, decided_by, TRIAL_GRACE_DAYS],
    )
    return Trials(row["trials"], row["converted"])


def _revenue(currency: str, customers: Sequence[tuple[Decimal, Decimal]], unknown: int) -> Revenue:
    """What customers, each with an amount at the start and at the end, come to."""
    stayed = [(start, end) for start, end in customers if start and end]
    return Revenue(
        currency_code=currency,
        start=sum((start for start, _ in customers), _ZERO),
        new=sum((end for start, end in customers if not start), _ZERO),
        expansion=sum((end - start for start, end in stayed if end > start), _ZERO),
        contraction=sum((start - end for start, end in stayed if end < start), _ZERO),
        churned=sum((start for start, end in customers if not end), _ZERO),
        end=sum((end for _, end in customers), _ZERO),
        customers_at_start=sum(start > 0 for start, _ in customers),
        customers_new=sum(not start and end > 0 for start, end in customers),
        customers_churned=sum(start > 0 and not end for start, end in customers),
        unknown=unknown,
    )


def _share(part: Decimal, whole: Decimal) -> Decimal | None:
    return part / whole if whole else None
