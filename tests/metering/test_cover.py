"""A cover answers a period exactly once: by whole days where it can, else by whole hours, and raw at the edges."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.periods import Period
from metering.rollups.cover import DAY, HOUR, Cover, cover
from tests.strategies import MANY, segments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """An instant in UTC, written short."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def spans(*texts: str) -> tuple[Period, ...]:
    """Periods, each written as `from/to` in March 2026: `10T14:37/11`."""
    ends = [text.split("/") for text in texts]
    return tuple(Period(at(f"2026-03-{start}"), at(f"2026-03-{end}")) for start, end in ends)


def floor(instant: datetime, width: timedelta) -> datetime:
    """The last whole multiple of a width at or before an instant."""
    return instant - (instant - EPOCH) % width


def joined(parts: Iterable[Period]) -> tuple[Period, ...]:
    """The same time in as few periods as there can be."""
    result: list[Period] = []
    for part in sorted(parts, key=lambda part: part.start):
        if result and part.start <= result[-1].end:
            result[-1] = Period(result[-1].start, max(result[-1].end, part.end))
        else:
            result.append(part)
    return tuple(result)


def buckets(parts: Iterable[Period], width: timedelta) -> list[Period]:
    """The rollup buckets of some parts, one by one."""
    return [
        Period(part.start + index * width, part.start + (index + 1) * width)
        for part in parts
        for index in range((part.end - part.start) // width)
    ]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Sequence[Period], datetime]:
    """Segments, and a horizon (a whole hour): before all, within, or after all of them."""
    chosen = draw(segments())
    first, last = floor(chosen[0].start, DAY) - DAY, chosen[-1].end + DAY
    return chosen, first + draw(st.integers(0, (last - first) // HOUR)) * HOUR


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize(
    ("segment", "complete_at", "expected"),
    [
        pytest.param(
            "10T14:37/13T22:10",
            "31",
            Cover(
                spans("11/13"), spans("10T15:00/11", "13/13T22:00"), spans("10T14:37/10T15:00", "13T22:00/13T22:10")
            ),
            id="raw, hours, days, hours, raw",
        ),
        pytest.param(
            "10T14:37/13T22:10",
            "12T05:00",
            Cover(spans("11/12"), spans("10T15:00/11", "12/12T05:00"), spans("10T14:37/10T15:00", "12T05:00/13T22:10")),
            id="what is not rolled up yet is raw",
        ),
        pytest.param("10/12", "31", Cover(spans("10/12"), (), ()), id="whole days are nothing else"),
        pytest.param("10/12", "11T23:00", Cover(spans("10/11"), spans("11/11T23:00"), spans("11T23:00/12")), id="a day short"),
        pytest.param("10/12", "09", Cover((), (), spans("10/12")), id="nothing is rolled up"),
        pytest.param("10/12", "10", Cover((), (), spans("10/12")), id="the horizon is the first instant not rolled up"),
        pytest.param("10T14:00/10T15:00", "31", Cover((), spans("10T14:00/10T15:00"), ()), id="an hour"),
        pytest.param("10T14:10/10T14:50", "31", Cover((), (), spans("10T14:10/10T14:50")), id="less than an hour"),
        pytest.param("10T14:30/10T15:30", "31", Cover((), (), spans("10T14:30/10T15:30")), id="no whole hour"),
        pytest.param(
            "10T23:59:59.999999/11T01:00:00.000001",
            "31",
            Cover((), spans("11/11T01:00"), spans("10T23:59:59.999999/11", "11T01:00/11T01:00:00.000001")),
            id="a microsecond more is raw",
        ),
    ],
)  # fmt: skip
def test_one_period(segment: str, complete_at: str, expected: Cover) -> None:
    """A period's edges are raw, then come hours, and days where they are whole and rolled up."""
    assert expected == cover(spans(segment), at(f"2026-03-{complete_at}"))


def test_neighbours_share_an_edge() -> None:
    """A day cut at half past is two segments: the hour that lies in both is in no rollup, and is one raw part."""
    expected = Cover((), spans("10/10T18:00", "10T19:00/11"), spans("10T18:00/10T19:00"))

    assert expected == cover(spans("10/10T18:30", "10T18:30/11"), at("2026-03-31"))


def test_neighbouring_days_are_one_part() -> None:
    """A series by UTC days asks for one stretch of daily rollups, not for one for each day."""
    assert Cover(spans("10/13"), (), ()) == cover(spans("10/11", "11/12", "12/13"), at("2026-03-31"))


def test_nothing_asked_nothing_covered() -> None:
    """No segments have no parts."""
    assert cover([], at("2026-03-31")) == Cover((), (), ())


# ---------------------------------------------------------------- properties


@MANY
@given(question=asked())
def test_every_instant_is_covered_exactly_once(question: tuple[Sequence[Period], datetime]) -> None:
    """Parts are not empty, never overlap, and together are exactly the segments."""
    wanted, complete_at = question
    covered = cover(wanted, complete_at)
    parts = sorted(chain(covered.days, covered.hours, covered.raw), key=lambda part: part.start)

    assert all(part.start < part.end for part in parts)
    assert all(before.end <= after.start for before, after in pairwise(parts))
    assert joined(wanted) == joined(parts)


@MANY
@given(question=asked())
def test_parts_ascend_and_are_apart(question: tuple[Sequence[Period], datetime]) -> None:
    """The parts of each kind ascend and do not touch: what touches is one part."""
    wanted, complete_at = question
    covered = cover(wanted, complete_at)

    assert (joined(covered.days), joined(covered.hours), joined(covered.raw)) == (
        covered.days,
        covered.hours,
        covered.raw,
    )


@MANY
@given(question=asked())
def test_rollups_are_whole_buckets_below_the_horizon(question: tuple[Sequence[Period], datetime]) -> None:
    """Days are whole UTC days and hours whole UTC hours, all of them rolled up, and each bucket lies in one segment."""
    wanted, complete_at = question
    covered = cover(wanted, complete_at)

    for parts, width in ((covered.days, DAY), (covered.hours, HOUR)):
        ends = list(chain.from_iterable((part.start, part.end) for part in parts))
        inside = [
            sum(segment.start <= bucket.start and bucket.end <= segment.end for segment in wanted)
            for bucket in buckets(parts, width)
        ]

        assert ends == [floor(end, width) for end in ends]
        assert all(part.end <= complete_at for part in parts)
        assert [1] * len(inside) == inside


@MANY
@given(question=asked())
def test_as_coarse_as_possible(question: tuple[Sequence[Period], datetime]) -> None:
    """Every whole UTC day inside a segment that is rolled up is answered by days, every other such hour by hours."""
    wanted, complete_at = question
    days: list[Period] = []
    hours: list[Period] = []
    for segment in wanted:
        window = Period(floor(segment.start, DAY), floor(segment.end, DAY) + DAY)
        whole = [
            [
                bucket
                for bucket in buckets([window], width)
                if segment.start <= bucket.start and bucket.end <= min(segment.end, complete_at)
            ]
            for width in (DAY, HOUR)
        ]
        days += whole[0]
        hours += [hour for hour in whole[1] if not any(day.start <= hour.start < day.end for day in whole[0])]

    covered = cover(wanted, complete_at)

    assert days == buckets(covered.days, DAY)
    assert hours == buckets(covered.hours, HOUR)


@MANY
@given(question=asked())
def test_a_later_horizon_leaves_less_raw(question: tuple[Sequence[Period], datetime]) -> None:
    """With an hour more rolled up, nothing more is read raw than before."""
    wanted, complete_at = question
    raw = [
        sum(((part.end - part.start) for part in cover(wanted, horizon).raw), timedelta(0))
        for horizon in (complete_at, complete_at + HOUR)
    ]

    assert raw[1] <= raw[0]
