"""How many lines a second the pure rating core makes on one core: one price on one figure, line after line.

Profile: 100,000 figures of 0.5 to 20,000.5 units with up to 99 events each; no minimum, maximum or discount unless the row
says so. Budget: 100,000 lines of a price with one line, each second. The best of three rounds is printed.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from bench import print_table

from rating.attribution import attribute
from rating.lines import Line, Origin
from rating.meters import Figure
from rating.money import Currency, Money, currency_of
from rating.periods import Period
from rating.plans import PlanPrice
from rating.prices import Dynamic, Graduated, Package, Percentage, PerUnit, Price, Tier, Volume
from rating.statements import rate_price

FIGURES = 100_000
ROUNDS = 3
KEYS = 100_000
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
ORIGIN = Origin(plan="team", plan_version=1, price="usage", meter="calls")
TIERS = (
    Tier(Decimal(1000), Decimal("0.10")),
    Tier(Decimal(10_000), Decimal("0.05")),
    Tier(None, Decimal("0.0125")),
)


def priced(kind: Price, **values: Decimal) -> PlanPrice:
    """A price of this kind on the meter."""
    return PlanPrice(key="usage", meter="calls", price=kind, **values)  # type: ignore[arg-type]


PRICES = {
    "per unit": priced(PerUnit(Decimal("0.0125"))),
    "dynamic": priced(Dynamic(Decimal("1.1"))),
    "package": priced(Package(Decimal(1000), Decimal(5))),
    "volume, three tiers": priced(Volume(TIERS)),
    "percentage with an amount for each event": priced(Percentage(Decimal("0.029"), Decimal("0.30"))),
    "graduated, three tiers": priced(Graduated(TIERS)),
    "per unit with included quantity, discount and minimum": priced(
        PerUnit(Decimal("0.0125")),
        included_quantity=Decimal(1000),
        discount_percent=Decimal(10),
        minimum_amount=Decimal(50),
    ),
}


def rate_all(price: PlanPrice, figures: list[Figure], currency: Currency) -> int:
    """Rate every figure; how many lines that made."""
    lines: tuple[Line, ...]
    count = 0
    for figure in figures:
        lines = rate_price(price, figure, currency, ORIGIN, MARCH)
        count += len(lines)
    return count


def main() -> None:
    euro = currency_of("EUR")
    assert euro is not None
    figures = [Figure(Decimal(index * 37 % 20_000) + Decimal("0.5"), index % 100) for index in range(FIGURES)]
    rows = []
    for name, price in PRICES.items():
        seconds, lines = best(partial(rate_all, price, figures, euro))
        rows.append([name, f"{FIGURES / seconds:,.0f}", f"{lines / FIGURES:.2f}", f"{lines / seconds:,.0f}"])
    print_table("Rating, one core", ["price", "prices/s", "lines each", "lines/s"], rows)

    usage = [((f"user-{index}", "phone"), Decimal(index * 37 % 997 + 1)) for index in range(KEYS)]
    seconds, _ = best(lambda: len(attribute(Money(Decimal("12345.67"), euro), usage, (None, None))))
    print_table("Attribution of one line, one core", ["keys", "keys/s"], [[f"{KEYS:,}", f"{KEYS / seconds:,.0f}"]])


def best(work: Callable[[], int]) -> tuple[float, int]:
    """The shortest of some rounds in seconds, and what the work counted."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        counted = work()
        rounds.append((time.perf_counter() - started, counted))
    return min(rounds)


if __name__ == "__main__":
    main()
