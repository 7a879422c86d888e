"""Whether a figure crossed a bound, without a database: at or above, strictly below, and a share without division."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from metering.alerts.crossings import Bounds, Crossing, Seen, crossing
from metering.outbox.event import subject_of
from metering.periods import Period

DAY = Period(datetime(2027, 3, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC) + timedelta(days=1))
NUMBERS = st.decimals(min_value=0, max_value=1_000, places=3)
ABOVE_ZERO = st.decimals(min_value="0.001", max_value=1_000, places=3)


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    """Two bounds, the lower one not above the other."""
    low, high = sorted((draw(ABOVE_ZERO), draw(ABOVE_ZERO)))
    return Bounds(high, low)


@given(bounds(), st.lists(st.tuples(NUMBERS, st.one_of(st.none(), ABOVE_ZERO))))
def test_alerts_are_raised_at_or_above_and_resolved_strictly_below(
    wanted: Bounds, figures: list[tuple[Decimal, Decimal | None]]
) -> None:
    """Over any course of figures alerts are raised and resolved in turns, each where the figure (or its share, as a fraction
    has it) is on that side of its bound; and nothing happens twice.
    """
    is_open = False
    for value, whole in figures:
        share = Fraction(value) if whole is None else Fraction(value) / Fraction(whole)
        seen = Seen(dimensions=(), period=DAY, value=value, whole=whole)
        result = crossing(seen, wanted, is_open=is_open)
        if is_open:
            assert (Crossing.RESOLVED if share < Fraction(wanted.resolve_below) else None) == result
        else:
            assert (Crossing.RAISED if share >= Fraction(wanted.threshold) else None) == result
        is_open = is_open if result is None else result is Crossing.RAISED
        assert crossing(seen, wanted, is_open=is_open) is None


@given(st.lists(st.tuples(st.sampled_from(["account", "user"]), st.one_of(st.none(), st.text(min_size=1))), max_size=3))
def test_subjects_are_told_apart(dimensions: list[tuple[str, str | None]]) -> None:
    """No two subjects have one name, whatever is in their values; and a name is one line of ASCII."""
    changed = [(name, f"{value or ''}/x") for name, value in dimensions]

    assert (subject_of(dimensions) == subject_of(changed)) == (not dimensions)
    assert subject_of(dimensions).isascii()
    assert subject_of(dimensions).isprintable()
