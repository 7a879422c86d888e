"""A price by dimension is several meters with filters; where two can count the same event, that is said."""

import pytest

from rating.exact import ONE
from rating.meters import DimensionFilter, Meter, MeterFilter, Overlap, overlaps
from rating.plans import PlanPrice
from rating.prices import Flat, PerUnit
from tests.rating.tables import plan


def only(*values: str | None) -> DimensionFilter:
    """Usage with one of these values."""
    return DimensionFilter(frozenset(values))


def none_of(*values: str | None) -> DimensionFilter:
    """Usage with another value."""
    return DimensionFilter(frozenset(values), excluded=True)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (MeterFilter(), MeterFilter(), True),
        (MeterFilter(product=only("a")), MeterFilter(product=only("b")), False),
        (MeterFilter(product=only("a", "b")), MeterFilter(product=only("b", "c")), True),
        (MeterFilter(product=only("a")), MeterFilter(product=none_of("a")), False),
        (MeterFilter(product=only("a", None)), MeterFilter(product=none_of("a")), True),
        (MeterFilter(product=none_of("a")), MeterFilter(product=none_of("b")), True),
        (MeterFilter(product=only("a")), MeterFilter(feature=only("b")), True),
        (MeterFilter(product=only("a"), unit=only("call")), MeterFilter(product=only("a"), unit=only("GB")), False),
        (MeterFilter(classification=only()), MeterFilter(), False),
    ],
)
def test_overlap_of_two_filters(one: MeterFilter, other: MeterFilter, overlap: bool) -> None:  # noqa: FBT001
    """Two filters overlap where some event passes both: every dimension has a value that both let through."""
    prices = [PlanPrice(key=f"on-{key}", meter=key, price=PerUnit(ONE)) for key in ("one", "other")]
    meters = [Meter(key="one", filter=one), Meter(key="other", filter=other)]

    assert ((Overlap("on-one", "on-other"),) if overlap else ()) == overlaps(plan(*prices), meters)


def test_overlaps_of_a_plan() -> None:
    """Every pair is named in the plan's order; flat prices and unknown meters have no overlap, one meter twice has."""
    prices = [
        PlanPrice(key="europe", meter="europe", price=PerUnit(ONE)),
        PlanPrice(key="base", price=Flat(ONE)),
        PlanPrice(key="asia", meter="asia", price=PerUnit(ONE)),
        PlanPrice(key="all", meter="all", price=PerUnit(ONE)),
        PlanPrice(key="again", meter="asia", price=PerUnit(ONE)),
        PlanPrice(key="lost", meter="unknown", price=PerUnit(ONE)),
    ]
    meters = [
        Meter(key="europe", filter=MeterFilter(feature=only("europe"))),
        Meter(key="asia", filter=MeterFilter(feature=only("asia"))),
        Meter(key="all"),
    ]

    assert overlaps(plan(*prices), meters) == (
        Overlap("europe", "all"),
        Overlap("asia", "all"),
        Overlap("asia", "again"),
        Overlap("all", "again"),
    )
