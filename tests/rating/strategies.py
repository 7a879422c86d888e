"""What the rating properties are tried on: amounts, quantities, tiers, prices, and cuts of a period."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from rating.money import Currency
from rating.periods import Period
from rating.plans import PlanPrice
from rating.prices import (
    Dynamic,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PerUnit,
    Price,
    StairStep,
    Tier,
    Volume,
)
from rating.steps import RoundingMode
from tests.rating.tables import currency

# Without a minor unit, with hundredths, with thousandths, and with the finest that there is.
CURRENCIES: Final = [currency(code) for code in ("JPY", "EUR", "KWD", "CLF")]


@cache
def currencies() -> st.SearchStrategy[Currency]:
    """Currencies with no, two, three and four minor digits."""
    return st.sampled_from(CURRENCIES)


@cache
def numbers(*, digits: int = 38, fraction_digits: int = 18, least: int = 0) -> st.SearchStrategy[Decimal]:
    """Decimals from zero on with at most so many digits; often short, as on a price list, often as long as allowed."""
    short = st.builds(
        lambda whole, places: Decimal(whole).scaleb(-places), st.integers(least, 9_999), st.integers(0, 4)
    )
    long = st.builds(
        lambda whole, places: Decimal(f"{whole}E-{places}"),
        st.integers(least, 10**digits - 1),
        st.integers(0, fraction_digits),
    )
    return st.one_of(short, long)


@cache
def quantities() -> st.SearchStrategy[Decimal]:
    """Quantities from zero on, zero itself often."""
    return st.one_of(st.just(Decimal(0)), numbers())


@st.composite
def _tiers(draw: st.DrawFn, *, rising: bool, stairs: bool) -> tuple[Tier, ...]:
    bounds = sorted(draw(st.lists(numbers(digits=12, fraction_digits=4, least=1), max_size=4, unique=True)))
    count = len(bounds) + 1
    unit_prices = [Decimal(0)] * count if stairs else draw(st.lists(numbers(), min_size=count, max_size=count))
    flat_prices = draw(st.lists(st.one_of(st.just(Decimal(0)), numbers()), min_size=count, max_size=count))
    if rising:
        unit_prices, flat_prices = sorted(unit_prices), sorted(flat_prices)
    return tuple(
        Tier(up_to, unit_price, flat_price)
        for up_to, unit_price, flat_price in zip([*bounds, None], unit_prices, flat_prices, strict=True)
    )


@cache
def tiers(*, rising: bool = False, stairs: bool = False) -> st.SearchStrategy[tuple[Tier, ...]]:
    """Tiers with bounds that rise; with prices that do not fall where that is asked for."""
    return _tiers(rising=rising, stairs=stairs)


@cache
def prices(*, rising: bool = False) -> st.SearchStrategy[Price]:
    """Prices on usage of every kind."""
    some, stairs = tiers(rising=rising), tiers(rising=rising, stairs=True)
    return st.one_of(
        st.builds(PerUnit, numbers()),
        st.builds(Graduated, some, flat_at_zero=st.booleans()),
        st.builds(Volume, some, flat_at_zero=st.booleans()),
        st.builds(GraduatedPercentage, some, flat_at_zero=st.booleans()),
        st.builds(StairStep, stairs, flat_at_zero=st.booleans()),
        st.builds(Package, numbers(least=1), numbers(), st.sampled_from(RoundingMode)),
        st.builds(Percentage, numbers(), numbers()),
        st.builds(Dynamic, numbers()),
    )


@st.composite
def plan_prices(draw: st.DrawFn) -> PlanPrice:
    """Prices on usage with everything that is done before and after."""
    bounds = sorted(draw(st.tuples(numbers(), numbers())))
    given: dict[str, Any] = {
        "included_quantity": draw(quantities()),
        "discount_percent": draw(st.one_of(st.just(Decimal(0)), numbers(digits=4, fraction_digits=2).map(_percent))),
        "minimum_amount": draw(st.sampled_from([None, bounds[0]])),
        "maximum_amount": draw(st.sampled_from([None, bounds[1]])),
        "prorated": draw(st.booleans()),
    }
    return PlanPrice(key="usage", meter="meter", price=draw(prices()), **given)


def _percent(number: Decimal) -> Decimal:
    return min(number, Decimal(100))


@st.composite
def cuts(draw: st.DrawFn, whole: Period, most: int = 7) -> list[Period]:
    """Parts that lie side by side and fill a period, one or some of them, down to a microsecond each."""
    length = (whole.end - whole.start) // timedelta.resolution
    inside = draw(st.lists(st.integers(1, length - 1), max_size=most - 1, unique=True))
    bounds = [whole.start + offset * timedelta.resolution for offset in [0, *sorted(inside), length]]
    return [Period(start, end) for start, end in itertools.pairwise(bounds)]


@cache
def billing_instants() -> st.SearchStrategy[datetime]:
    """Instants in UTC over some years, often at the end of a month, and often with a time of day."""
    month_ends = st.builds(
        lambda months, days, seconds: (
            datetime(2023, 1, 31, tzinfo=UTC) + timedelta(days=round(months * 30.436875) + days, seconds=seconds)
        ),
        st.integers(0, 60),
        st.integers(-2, 2),
        st.integers(0, 86_399),
    )
    anywhere = st.integers(0, 6 * 366 * 86_400 * 10**6).map(
        lambda microseconds: datetime(2022, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    )
    return st.one_of(month_ends, anywhere)
