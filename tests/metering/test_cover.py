"""A cover answers a period exactly once: by whole days where it can, else by quarters of an hour, by the tail, and raw."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.periods import Bucket, Period, bucket_bounds, bucket_stretches, zone_of
from metering.rollups.cover import DAY, MINUTE, QUARTER_HOUR, Cover, clipped, cover
from tests.strategies import MANY, bucketed_periods, segments

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


def lies_in_one(bucket: Period, segments: Sequence[Period]) -> bool:
    """Whether a bucket lies wholly inside one of these."""
    return sum(segment.start <= bucket.start and bucket.end <= segment.end for segment in segments) == 1


def inside(segment: Period, of: Iterable[Period], limit: datetime) -> list[Period]:
    """Those that lie wholly inside a segment, and below a limit."""
    return [bucket for bucket in of if segment.start <= bucket.start and bucket.end <= min(segment.end, limit)]


class Asked(msgspec.Struct, frozen=True):
    """What a cover is made of."""

    segments: Sequence[Period]
    complete_at: datetime
    tail_at: datetime

    def cover(self) -> Cover:
        """The cover of it."""
        return cover(self.segments, self.complete_at, self.tail_at)


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """Segments, a horizon (a quarter of an hour) before all, within, or after all of them, and a tail of up to two hours.

    The tail often ends near a segment's bound, where it may have rolled up a minute in part.
    """
    chosen = draw(segments())
    if draw(st.booleans()):
        bound = draw(st.sampled_from([bound for segment in chosen for bound in (segment.start, segment.end)]))
        tail_at = bound + timedelta(seconds=draw(st.sampled_from([-61, -60, -20, 0, 0, 1, 20, 60, 90])))
        return Asked(chosen, floor(tail_at - timedelta(minutes=draw(st.integers(0, 40))), QUARTER_HOUR), tail_at)
    first, last = floor(chosen[0].start, DAY) - DAY, chosen[-1].end + DAY
    complete_at = first + draw(st.integers(0, (last - first) // QUARTER_HOUR)) * QUARTER_HOUR
    return Asked(chosen, complete_at, complete_at + timedelta(seconds=draw(st.integers(0, 7_200))))


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize(
    ("segment", "complete_at", "tail_at", "expected"),
    [
        pytest.param(
            "10T14:37/13T22:10", "31", "31",
            Cover(
                spans("11/13"), spans("10T14:45/11", "13/13T22:00"), (), (), spans("10T14:37/10T14:45", "13T22:00/13T22:10")
            ),
            id="raw, quarters, days, quarters, raw",
        ),
        pytest.param(
            "10T14:37/13T22:10", "12T05:15", "12T05:15",
            Cover(spans("11/12"), spans("10T14:45/11", "12/12T05:15"), (), (), spans("10T14:37/10T14:45", "12T05:15/13T22:10")),
            id="what is not rolled up yet is raw",
        ),
        pytest.param("10/12", "31", "31", Cover(spans("10/12"), (), (), (), ()), id="whole days are nothing else"),
        pytest.param(
            "10/12", "11T23:45", "11T23:45",
            Cover(spans("10/11"), spans("11/11T23:45"), (), (), spans("11T23:45/12")), id="a day short",
        ),
        pytest.param("10/12", "09", "09", Cover((), (), (), (), spans("10/12")), id="nothing is rolled up"),
        pytest.param("10/12", "10", "10", Cover((), (), (), (), spans("10/12")), id="the horizon is the first not rolled up"),
        pytest.param("10T14:15/10T14:30", "31", "31", Cover((), spans("10T14:15/10T14:30"), (), (), ()), id="a quarter"),
        pytest.param("10T14:16/10T14:29", "31", "31", Cover((), (), (), (), spans("10T14:16/10T14:29")), id="less than one"),
        pytest.param("10T14:20/10T14:35", "31", "31", Cover((), (), (), (), spans("10T14:20/10T14:35")), id="no whole one"),
        pytest.param(
            "10T18:30/11T18:30", "31", "31", Cover((), spans("10T18:30/11T18:30"), (), (), ()), id="a day of Kolkata"
        ),
        pytest.param(
            "10T23:59:59.999999/11T01:00:00.000001", "31", "31",
            Cover((), spans("11/11T01:00"), (), (), spans("10T23:59:59.999999/11", "11T01:00/11T01:00:00.000001")),
            id="a microsecond more is raw",
        ),
        pytest.param(
            "10/11", "10T12:00", "10T12:17:20",
            Cover((), spans("10/10T12:00"), spans("10T12:00/10T12:17"), spans("10T12:17/10T12:17:20"), spans("10T12:17:20/11")),
            id="quarters, the tail with its part of a minute, raw",
        ),
        pytest.param(
            "10T12:00:30/10T12:17:20", "10T12:00", "10T12:17:20",
            Cover((), (), spans("10T12:01/10T12:17"), spans("10T12:17/10T12:17:20"), spans("10T12:00:30/10T12:01")),
            id="up to the end of the tail",
        ),
        pytest.param(
            "10T12:00/10T12:17:10", "10T12:00", "10T12:17:20",
            Cover((), (), spans("10T12:00/10T12:17"), (), spans("10T12:17/10T12:17:10")),
            id="a part of the part of a minute is raw",
        ),
        pytest.param(
            "10T11:50/10T12:10", "10T12:00", "10T12:17:20",
            Cover((), (), spans("10T12:00/10T12:10"), (), spans("10T11:50/10T12:00")),
            id="an edge below the horizon is no part of the tail",
        ),
    ],
)  # fmt: skip
def test_one_period(segment: str, complete_at: str, tail_at: str, expected: Cover) -> None:
    """A period's edges are raw, then come quarters, and days where they are whole and rolled up; then the tail."""
    assert expected == cover(spans(segment), at(f"2026-03-{complete_at}"), at(f"2026-03-{tail_at}"))


def test_neighbours_share_an_edge() -> None:
    """A day cut at twenty past is two segments: the quarter that lies in both is in no rollup, and is one raw part."""
    expected = Cover((), spans("10/10T18:15", "10T18:30/11"), (), (), spans("10T18:15/10T18:30"))
    end = at("2026-03-31")

    assert expected == cover(spans("10/10T18:20", "10T18:20/11"), end, end)


def test_neighbours_share_a_minute_of_the_tail() -> None:
    """The minute that the tail ends in is raw where a segment ends inside it: its rows are of neither of the two."""
    expected = Cover((), (), spans("10T12:00/10T12:17"), (), spans("10T12:17/10T12:30"))

    covered = cover(
        spans("10T12:00/10T12:17:10", "10T12:17:10/10T12:30"), at("2026-03-10T12:00"), at("2026-03-10T12:17:20")
    )

    assert expected == covered


def test_neighbouring_days_are_one_part() -> None:
    """A series by UTC days asks for one stretch of daily rollups, not for one for each day."""
    end = at("2026-03-31")

    assert Cover(spans("10/13"), (), (), (), ()) == cover(spans("10/11", "11/12", "12/13"), end, end)


def test_nothing_asked_nothing_covered() -> None:
    """No segments have no parts."""
    end = at("2026-03-31")

    assert cover([], end, end) == Cover((), (), (), (), ())


# ---------------------------------------------------------------- properties


@MANY
@given(question=asked())
def test_every_instant_is_covered_exactly_once(question: Asked) -> None:
    """Parts are not empty, never overlap, and together are exactly the segments."""
    covered = question.cover()
    parts = sorted(chain(*msgspec.structs.astuple(covered)), key=lambda part: (part.start, part.end))

    assert all(part.start < part.end for part in parts)
    assert all(before.end <= after.start for before, after in pairwise(parts))
    assert joined(question.segments) == joined(parts)


@MANY
@given(question=asked())
def test_parts_ascend_and_are_apart(question: Asked) -> None:
    """The parts of each kind ascend and do not touch: what touches is one part."""
    covered = question.cover()

    for parts in msgspec.structs.astuple(covered):
        assert joined(parts) == parts


@MANY
@given(question=asked())
def test_rollups_are_whole_buckets_below_the_horizon(question: Asked) -> None:
    """Days and quarters are whole UTC ones, all of them rolled up, and each bucket lies in one segment."""
    covered = question.cover()

    for parts, width in ((covered.days, DAY), (covered.quarters, QUARTER_HOUR)):
        ends = list(chain.from_iterable((part.start, part.end) for part in parts))

        assert ends == [floor(end, width) for end in ends]
        assert all(part.end <= question.complete_at for part in parts)
        assert all(lies_in_one(bucket, question.segments) for bucket in buckets(parts, width))


@MANY
@given(question=asked())
def test_minutes_are_whole_and_the_open_one_is_all_there_is(question: Asked) -> None:
    """Minutes are whole ones between the horizons, the open one is what there is of it; and each lies in one segment."""
    covered = question.cover()
    ends = list(chain.from_iterable((part.start, part.end) for part in covered.minutes))

    assert ends == [floor(end, MINUTE) for end in ends]
    assert all(question.complete_at <= end <= question.tail_at for end in ends)
    assert set(covered.open) <= {Period(floor(question.tail_at, MINUTE), question.tail_at)}
    assert all(
        lies_in_one(minute, question.segments) for minute in chain(buckets(covered.minutes, MINUTE), covered.open)
    )


@MANY
@given(question=asked())
def test_as_coarse_as_possible(question: Asked) -> None:
    """Each whole UTC day inside a segment that is rolled up is answered by days, every other such quarter by quarters, and
    each such minute above the horizon by minutes.
    """
    days: list[Period] = []
    quarters: list[Period] = []
    minutes: list[Period] = []
    for segment in question.segments:
        window = Period(floor(segment.start, DAY), floor(segment.end, DAY) + DAY)
        whole = [inside(segment, buckets([window], width), question.complete_at) for width in (DAY, QUARTER_HOUR)]
        days += whole[0]
        quarters += [each for each in whole[1] if not any(day.start <= each.start < day.end for day in whole[0])]
        tail = Period(question.complete_at, max(question.complete_at, floor(question.tail_at, MINUTE)))
        minutes += inside(segment, buckets([tail], MINUTE), question.tail_at)

    covered = question.cover()

    assert days == buckets(covered.days, DAY)
    assert quarters == buckets(covered.quarters, QUARTER_HOUR)
    assert minutes == buckets(covered.minutes, MINUTE)


@MANY
@given(question=asked())
def test_a_later_horizon_leaves_less_raw(question: Asked) -> None:
    """With a quarter of an hour more rolled up, nothing more is read raw; nor with a longer tail, but for one minute."""
    without, further, short, longer = (
        sum((part.end - part.start for part in cover(question.segments, complete_at, tail_at).raw), timedelta(0))
        for complete_at, tail_at in (
            (question.complete_at, question.complete_at),
            (question.complete_at + QUARTER_HOUR, question.complete_at + QUARTER_HOUR),
            (question.complete_at, question.tail_at),
            (question.complete_at, question.tail_at + MINUTE),
        )
    )

    assert further <= without
    assert longer - MINUTE <= short <= without


@MANY
@given(asked=bucketed_periods(), data=st.data())
def test_buckets_told_as_stretches_are_covered_one_by_one(
    asked: tuple[Period, str, Bucket], data: st.DataObject
) -> None:
    """A series in few words has the cover of its buckets, of which the first and the last are cut by the period."""
    period, zone_name, bucket = asked
    bounds = bucket_bounds(period, zone_of(zone_name), bucket)
    one_by_one = [Period(max(start, period.start), min(end, period.end)) for start, end in pairwise(bounds)]
    length = (period.end - period.start) // timedelta.resolution
    within = timedelta(microseconds=data.draw(st.integers(-length // 10 - 1, length + length // 10 + 1)))
    complete_at = floor(period.start + within, QUARTER_HOUR)
    tail_at = complete_at + timedelta(seconds=data.draw(st.integers(0, 7_200)))

    told = clipped(bucket_stretches(period, zone_of(zone_name), bucket), period)

    assert cover(one_by_one, complete_at, tail_at) == cover(told, complete_at, tail_at)
