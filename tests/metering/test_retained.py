"""What is retained answers a question or names the nearest ones: a promise that is kept when they are asked."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import InputIssue
from metering.periods import Bucket, Period, bucket_bounds, zone_of
from metering.rollups.cover import DAY, cover
from metering.rollups.read import GRAIN
from metering.rollups.retained import Nearest, Retained, nearest, refusal
from tests.strategies import MANY, MICROSECOND, bucketed_periods, periods

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """An instant in March 2026, written short."""
    return datetime.fromisoformat(f"2026-03-{text}").replace(tzinfo=UTC)


MARCH = Retained(raw_from=at("20"), rollups_from=at("05"), grain=timedelta(hours=1))


def answered(retained: Retained, segments: Sequence[Period], complete_at: datetime) -> bool:
    """Whether every part that these segments are covered by is retained, written down anew."""
    covered = cover(segments, complete_at, complete_at)
    rolled_up = [*covered.days, *covered.quarters, *covered.minutes, *covered.open]
    return not any(part.start < retained.raw_from for part in covered.raw) and not any(
        part.start < retained.rollups_from for part in rolled_up
    )


def segments_of(period: Period, bounds: Sequence[datetime]) -> list[Period]:
    """A period, cut at the bounds that lie inside."""
    cuts = [period.start, *(bound for bound in bounds if period.start < bound < period.end), period.end]
    return [Period(start, end) for start, end in pairwise(cuts)]


@st.composite
def retained_near(draw: st.DrawFn, period: Period) -> tuple[Retained, datetime]:
    """What is retained, with its instants around the period or within it; and a horizon that is not below them."""

    def midnight(low: datetime, high: datetime) -> datetime:
        first = low - (low - EPOCH) % DAY
        return first + draw(st.integers(0, max(0, (high - first) // DAY))) * DAY

    raw_from = midnight(period.start - 2 * DAY, period.end + 2 * DAY)
    rollups_from = draw(
        st.one_of(st.just(YEAR_1), st.just(raw_from), st.just(midnight(period.start - 2 * DAY, raw_from)))
    )
    complete_at = raw_from + draw(st.integers(0, 100)) * timedelta(hours=1)
    return Retained(raw_from=raw_from, rollups_from=min(rollups_from, raw_from), grain=GRAIN), complete_at


def bounds_in(period: Period, zone: ZoneInfo, bucket: Bucket | None) -> Sequence[datetime]:
    """The bounds of a series' buckets; none without a series."""
    return () if bucket is None else bucket_bounds(period, zone, bucket)


@given(st.data(), st.one_of(bucketed_periods(), st.tuples(periods(), st.just("UTC"), st.none())))
@MANY
def test_what_is_named_is_answered(data: st.DataObject, asked: tuple[Period, str, Bucket | None]) -> None:
    """A question is answered exactly when nothing near it is named instead; and whatever is named, is answered when asked."""
    period, zone_name, bucket = asked
    zone = zone_of(zone_name)
    retained, complete_at = data.draw(retained_near(period))
    bounds = bounds_in(period, zone, bucket)
    near = nearest(retained, period, bounds)
    covered = cover(segments_of(period, bounds), complete_at, complete_at)
    holds = retained.holds(covered.raw, (*covered.days, *covered.quarters, *covered.minutes, *covered.open))

    assert answered(retained, segments_of(period, bounds), complete_at) == holds
    assert holds == (near == Nearest((period.start,), (period.end,)))
    pairs = [Period(start, end) for start, end in product(near.starts, near.ends) if start < end]
    assert {pair.start for pair in pairs} == set(near.starts)
    assert {pair.end for pair in pairs} == set(near.ends)
    for pair in pairs:
        assert answered(retained, segments_of(pair, bounds_in(pair, zone, bucket)), complete_at), pair


@given(st.data(), periods())
@MANY
def test_nothing_nearer_is_answered(data: st.DataObject, period: Period) -> None:
    """Between the asked instant and a named one, on either side, no other begins a period that is answered."""
    retained, complete_at = data.draw(retained_near(period))
    near = nearest(retained, period, ())
    if period.end <= retained.rollups_from or near.ends != (period.end,):
        return
    between = st.datetimes(
        near.starts[0].replace(tzinfo=None), near.starts[-1].replace(tzinfo=None), timezones=st.just(UTC)
    )
    start = data.draw(between)
    closest = [start] if start in near.starts else []

    assert answered(retained, [Period(start, period.end)], complete_at) is bool(
        closest or near.starts == (period.start,)
    )


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param("10T14:30", "25", Nearest((at("10T14:00"), at("10T15:00")), (at("25"),)), id="an edge below"),
        pytest.param("10T14:00", "25T14:37", Nearest((at("10T14:00"),), (at("25T14:37"),)), id="whole hours and an edge above"),
        pytest.param("20T00:00:00.000001", "25", Nearest((at("20T00:00:00.000001"),), (at("25"),)), id="events alone"),
        pytest.param(
            "19T23:59:59.999999", "25", Nearest((at("19T23:00"), at("20")), (at("25"),)), id="a microsecond below events"
        ),
        pytest.param("10", "12T10:30", Nearest((at("10"),), (at("12T10:00"), at("12T11:00"))), id="the end is an edge"),
        pytest.param("10T10:05", "10T10:20", Nearest((at("10T10:00"),), (at("10T11:00"),)), id="within one hour"),
        pytest.param("01", "25", Nearest((at("05"),), (at("25"),)), id="begins below rollups"),
        pytest.param("01", "03", Nearest((at("05"),), (at("05T01:00"),)), id="all of it below rollups"),
        pytest.param("01", "05", Nearest((at("05"),), (at("05T01:00"),)), id="ends where rollups begin"),
        pytest.param("04T23:59", "05T00:30", Nearest((at("05"),), (at("05T01:00"),)), id="across where rollups begin"),
    ],
)  # fmt: skip
def test_one_period(start: str, end: str, expected: Nearest) -> None:
    """The whole hours around an edge are named; where nothing is left, the first that is."""
    assert expected == nearest(MARCH, Period(at(start), at(end)), ())


@pytest.mark.parametrize(
    ("bucket", "zone", "expected"),
    [
        (Bucket.DAY, "UTC", Nearest((at("10"),), (at("25"),))),
        (Bucket.HOUR, "UTC", Nearest((at("10"),), (at("25"),))),
        (Bucket.MINUTE, "UTC", Nearest((at("20"),), (at("25"),))),
    ],
)
def test_a_series(bucket: Bucket, zone: str, expected: Nearest) -> None:
    """A series whose buckets cut the narrowest rollup's can begin where the events do."""
    period = Period(at("10"), at("25"))

    assert expected == nearest(MARCH, period, bucket_bounds(period, zone_of(zone), bucket))


def test_the_refusal_names_them() -> None:
    """The refusal has an issue for each end that is at fault, with the reason and the instants, and none for one that is not."""
    reason = "Events before 2026-03-20T00:00:00Z are not kept any more, only figures of every 60 minutes."
    both = refusal(MARCH, Period(at("10T14:30"), at("12T10:30")), ())
    one = refusal(MARCH, Period(at("01"), at("12")), ())

    assert both.issues == (
        InputIssue(
            ("query", "period", "from"),
            f"{reason} The nearest `from` that can be answered is 2026-03-10T14:00:00Z or 2026-03-10T15:00:00Z.",
        ),
        InputIssue(
            ("query", "period", "to"),
            f"{reason} The nearest `to` that can be answered is 2026-03-12T10:00:00Z or 2026-03-12T11:00:00Z.",
        ),
    )
    assert one.issues == (
        InputIssue(
            ("query", "period", "from"),
            "Figures are kept from 2026-03-05T00:00:00Z on. "
            "The nearest `from` that can be answered is 2026-03-05T00:00:00Z.",
        ),
    )


def test_where_nothing_was_dropped_everything_is_answered() -> None:
    """With the first instant of the calendar for both, no question is refused."""
    everything = Retained(raw_from=YEAR_1, rollups_from=YEAR_1, grain=GRAIN)
    period = Period(datetime(1900, 1, 1, tzinfo=UTC) + MICROSECOND, datetime(2199, 12, 31, 23, 59, tzinfo=UTC))

    assert answered(everything, [period], EPOCH)
    assert Nearest((period.start,), (period.end,)) == nearest(everything, period, ())
