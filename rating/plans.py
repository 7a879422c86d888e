"""Plans as values: a version of a plan, and its prices."""

from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum

import msgspec

from rating.billing_periods import BillingInterval
from rating.exact import ZERO
from rating.prices import Price


class PriceTiming(Enum):
    """When an amount is due: at the end of its period or at its beginning. Its line stands on that period either way."""

    IN_ARREARS = "IN_ARREARS"
    IN_ADVANCE = "IN_ADVANCE"


class PlanPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price within a plan: what it is on, and what is done before and after it is applied.

    `key` is stable within the plan; lines and adjustments carry it. `meter` is None for a recurring price.
    `discount_percent` is 0 to 100. With `prorated`, a part of a period costs a part of the amount: of flat and per-seat
    prices, of the minimum and of the included quantity.
    """

    key: str
    price: Price
    meter: str | None = None
    included_quantity: Decimal = ZERO
    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None
    discount_percent: Decimal = ZERO
    timing: PriceTiming = PriceTiming.IN_ARREARS
    prorated: bool = True


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a plan; it never changes. `effective_from` is UTC; `minimum_amount` is for each billing period."""

    key: str
    version: int
    name: str
    currency_code: str
    interval: BillingInterval
    effective_from: datetime
    prices: tuple[PlanPrice, ...]
    minimum_amount: Decimal | None = None

    def __post_init__(self) -> None:
        assert self.effective_from.utcoffset() == timedelta(0), "a plan's beginning is in UTC"
