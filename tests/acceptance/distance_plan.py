"""A distance plan for the flights of 2013, and what it comes to: written down once more over the flights, with
fractions and whole cents, and nothing of the service's code.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final, NamedTuple

METERS: Final[Sequence[Mapping[str, Any]]] = (
    {"key": "miles", "name": "Miles flown", "unit": "mile"},
    {"key": "minutes", "name": "Minutes in the air", "unit": "minute"},
    # A flight is an event of its miles and one of its minutes; it is counted by the first.
    {
        "key": "flights",
        "name": "Flights",
        "unit": "flight",
        "aggregation": "COUNT",
        "filter": {"unit": {"in": ["mile"]}},
    },
    {
        "key": "flights-from-lga",
        "name": "Flights from LaGuardia",
        "unit": "flight",
        "aggregation": "COUNT",
        "filter": {"unit": {"in": ["mile"]}, "classification": {"in": ["LGA"]}},
    },
)
BASE: Final = "1250"
# Up to, for each mile, once for the tier: each mile at the price of its own tier.
MILES: Final = ((100_000, "0.0213", "0"), (1_000_000, "0.01749", "150"), (None, "0.0113", "0"))
# So much for each 100 minutes, the started ones included.
MINUTES: Final = (100, "7.25")
# Up to, for each flight: all flights at the price of the tier that their number reaches.
FLIGHTS: Final = ((50, "19.995"), (1_000, "15.495"), (4_000, "11.9955"), (None, "9.3335"))
# Besides, for each flight from LaGuardia.
LAGUARDIA: Final = "4.125"
LEAST: Final = "2500"

PLAN: Final[Mapping[str, Any]] = {
    "key": "distance",
    "name": "Distance",
    "currencyCode": "USD",
    "interval": "MONTH",
    "effectiveFrom": "2013-01-01T00:00:00-05:00",
    "minimumAmount": LEAST,
    "prices": [
        {"key": "base", "timing": "IN_ADVANCE", "price": {"flat": {"amount": BASE}}},
        {
            "key": "miles",
            "meter": "miles",
            "price": {
                "graduated": {
                    "tiers": [
                        {"upTo": None if up_to is None else str(up_to), "unitPrice": unit_price, "flatPrice": once}
                        for up_to, unit_price, once in MILES
                    ]
                }
            },
        },
        {
            "key": "minutes",
            "meter": "minutes",
            "price": {"package": {"size": str(MINUTES[0]), "packagePrice": MINUTES[1]}},
        },
        {
            "key": "flights",
            "meter": "flights",
            "price": {
                "volume": {
                    "tiers": [
                        {"upTo": None if up_to is None else str(up_to), "unitPrice": unit_price}
                        for up_to, unit_price in FLIGHTS
                    ]
                }
            },
        },
        {"key": "laguardia", "meter": "flights-from-lga", "price": {"perUnit": {"unitPrice": LAGUARDIA}}},
    ],
}


class Row(NamedTuple):
    """A flight that was flown."""

    carrier: str
    number: str
    tail: str
    origin: str
    destination: str
    miles: int
    minutes: int


class Line(NamedTuple):
    """A line of a statement: price, tier, quantity, unit price, exact amount and whole cents; texts as the API has them."""

    price: str | None
    tier: int | None
    quantity: str | None
    unit_price: str | None
    exact: Fraction
    cents: int


def lines_of(flown: Sequence[Row]) -> list[Line]:
    """The statement of a month in which these flights were flown."""
    lines = [Line("base", None, None, None, Fraction(BASE), 100 * int(BASE))]
    for stretch in (_miles(flown), _minutes(flown), _flights(flown), _laguardia(flown)):
        lines += _settled(stretch)
    missing = 100 * int(LEAST) - sum(line.cents for line in lines)
    if missing > 0:
        lines.append(Line(None, None, None, None, Fraction(missing, 100), missing))
    return lines


def _miles(flown: Sequence[Row]) -> list[Line]:
    whole, below, lines = sum(row.miles for row in flown), 0, []
    for tier, (up_to, unit_price, once) in enumerate(MILES, 1):
        if tier > 1 and whole <= below:
            break
        inside = (whole if up_to is None else min(whole, up_to)) - below
        lines.append(_line("miles", tier, inside, unit_price))
        if Fraction(once):
            lines.append(Line("miles", tier, None, None, Fraction(once), 0))
        below += inside
    return lines


def _minutes(flown: Sequence[Row]) -> list[Line]:
    size, each = MINUTES
    return [_line("minutes", None, ceil(Fraction(sum(row.minutes for row in flown), size)), each)]


def _flights(flown: Sequence[Row]) -> list[Line]:
    reached = next(tier for tier, (up_to, _) in enumerate(FLIGHTS, 1) if up_to is None or len(flown) <= up_to)
    return [_line("flights", reached, len(flown), FLIGHTS[reached - 1][1])]


def _laguardia(flown: Sequence[Row]) -> list[Line]:
    return [_line("laguardia", None, sum(row.origin == "LGA" for row in flown), LAGUARDIA)]


def _line(price: str, tier: int | None, quantity: int, unit_price: str) -> Line:
    return Line(price, tier, str(quantity), unit_price, quantity * Fraction(unit_price), 0)


def _settled(lines: Sequence[Line]) -> list[Line]:
    """The lines of one price, which is rounded once, half up: each its whole cents, and those that are left to the lines
    that were cut by most.
    """
    exact = [100 * line.exact for line in lines]
    cents = [floor(amount) for amount in exact]
    left = floor(sum(exact) + Fraction(1, 2)) - sum(cents)
    most = sorted(range(len(lines)), key=lambda place: (cents[place] - exact[place], place))
    return [line._replace(cents=cents[place] + (place in most[:left])) for place, line in enumerate(lines)]


# ---------------------------------------------------------------- whose an amount is

# What each price is shared by.
_WEIGHTS: Final[Mapping[str, tuple[str, Callable[[Row], int]]]] = {
    "miles": ("mile", lambda row: row.miles),
    "minutes": ("minute", lambda row: row.minutes),
    "flights": ("mile", lambda _: 1),
    "laguardia": ("mile", lambda row: int(row.origin == "LGA")),
}


def cents_by_aircraft(flown: Sequence[Row]) -> dict[str | None, int]:
    """The cents of a month by tail number, None for what no flight is behind.

    Each line is shared out among the flights' numbers, aircraft, destinations and origins, by what they used, and the cents
    that are left go to the parts that were cut by most.
    """
    sums: dict[str | None, int] = defaultdict(int)
    for line in lines_of(flown):
        for tail, cents in _shared(line, flown):
            sums[tail] += cents
    return {tail: cents for tail, cents in sums.items() if cents}


def _shared(line: Line, flown: Sequence[Row]) -> Iterable[tuple[str | None, int]]:
    used: dict[tuple[str, ...], int] = defaultdict(int)
    if line.price in _WEIGHTS:
        unit, weight = _WEIGHTS[line.price]
        for row in flown:
            if weight(row):
                key = (f"{row.carrier}{row.number}", row.tail, "flight", row.destination, row.origin, unit)
                used[key] += weight(row)
    whole = sum(used.values())
    if not whole:
        return [(None, line.cents)]
    keys = sorted(used)
    cents = [line.cents * used[key] // whole for key in keys]
    cut = [line.cents * used[key] % whole for key in keys]
    most = sorted(range(len(keys)), key=lambda place: (-cut[place], place))[: line.cents - sum(cents)]
    for place in most:
        cents[place] += 1
    return [(key[1], amount) for key, amount in zip(keys, cents, strict=True)]
