"""The figures that statements were made of tell those of the stretches of time that they fill, and of no others."""

from decimal import Decimal

import pytest

from metering.aggregations import Aggregation
from metering.meters import Definition
from metering.statements.compared import KnownFigures
from rating.meters import Figure
from rating.periods import Period
from tests.rating.tables import period

FIRST, SECOND, LAST = (
    period("2026-03-01", "2026-03-10"),
    period("2026-03-10", "2026-03-20"),
    period("2026-03-25", "2026-04-01"),
)


def known(aggregation: Aggregation) -> KnownFigures:
    """Three figures of March, with a gap before the last one; another meter shows something else."""
    definition = Definition(
        key="calls", name="Calls", unit="call", aggregation=aggregation, distinct=None, filters={}, rounding=None
    )
    figures = {
        ("calls", LAST): Figure(Decimal(4), 3),
        ("calls", SECOND): Figure(Decimal("2.5"), 2),
        ("calls", FIRST): Figure(Decimal(1), 1),
        ("others", period("2026-03-20", "2026-03-25")): Figure(Decimal(9), 9),
    }
    return KnownFigures(figures, {"calls": definition, "others": definition})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (FIRST, Figure(Decimal(1), 1)),
        (period("2026-03-01", "2026-03-20"), Figure(Decimal("3.5"), 3)),
        (period("2026-03-01", "2026-04-01"), None),
        (period("2026-03-01", "2026-03-15"), None),
        (period("2026-03-02", "2026-03-20"), None),
        (period("2026-03-20", "2026-03-25"), None),
        (period("2026-02-01", "2026-03-20"), None),
        (period("2026-03-25", "2026-04-02"), None),
    ],
)
def test_figures_are_told_by_their_parts(asked: Period, expected: Figure | None) -> None:
    """Parts that fill a period without a gap add up to its figure; where there is one, or a part sticks out, it is not told."""
    assert expected == known(Aggregation.SUM).find("calls", asked)
    assert expected == known(Aggregation.COUNT).find("calls", asked)


def test_figures_that_do_not_add_up_are_not_put_together() -> None:
    """A maximum is told for its own period only."""
    peaks = known(Aggregation.MAX)

    assert Figure(Decimal("2.5"), 2) == peaks.find("calls", SECOND)
    assert None is peaks.find("calls", period("2026-03-01", "2026-03-20"))
