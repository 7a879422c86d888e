"""Which questions what is retained can answer; and for those that it cannot, the nearest ones that it can. Pure.

    gone           rollups: whole buckets only                 events: every instant
    ----------|====================================|----------------------------------------
         rollups_from                          raw_from

A question cuts time at its period's ends and at the bounds of its series. Below `raw_from` only cuts between two of the
narrowest rollup's buckets can be made: any other needs events. Both instants are such cuts themselves.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from metering.errors import InputIssue, InvalidInputError
from metering.periods import Period
from rating.periods import instant_text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """Every event from `raw_from` on is there, and every rollup row from `rollups_from` on, of buckets as wide as `grain`."""

    raw_from: datetime
    rollups_from: datetime
    grain: timedelta

    def holds(self, raw: Iterable[Period], rolled_up: Iterable[Period]) -> bool:
        """Whether everything is there that these parts are read from."""
        return all(part.start >= self.raw_from for part in raw) and all(
            part.start >= self.rollups_from for part in rolled_up
        )

    def can_cut(self, at: datetime) -> bool:
        """Whether usage before this instant can be told from usage after it."""
        return at >= self.raw_from or (at >= self.rollups_from and not (at - _EPOCH) % self.grain)

    def cut_before(self, at: datetime) -> datetime:
        """The last cut between buckets at or before this instant."""
        return at - (at - _EPOCH) % self.grain

    def cut_after(self, at: datetime) -> datetime:
        """The first cut that can be made at or after this instant, which lies below `raw_from`."""
        return max(at + (_EPOCH - at) % self.grain, self.rollups_from)


class Nearest(msgspec.Struct, frozen=True):
    """Instants at which the period could begin, and end: a pair in order, taken from the two, is answered."""

    starts: tuple[datetime, ...]
    ends: tuple[datetime, ...]


def nearest(retained: Retained, period: Period, bounds: Sequence[datetime]) -> Nearest:
    """The answerable questions nearest to this one; `bounds` are those of its series' buckets, none where it has none."""
    inner = [at for at in bounds if period.start < at < period.end]
    uncut = [at for at in inner if not retained.can_cut(at)]
    starts = [period.start] if not uncut and retained.can_cut(period.start) else []
    if not starts:
        # A bucket's bound that cannot be cut at has to lie outside.
        starts = [retained.cut_after(uncut[-1] if uncut else period.start)]
        earlier = retained.cut_before(period.start)
        if not uncut and earlier >= max([retained.rollups_from, *bounds[:1]]):
            starts.insert(0, earlier)
    ends = [period.end] if retained.can_cut(period.end) and period.end > retained.rollups_from else []
    if not ends:
        first_whole = retained.rollups_from + retained.grain
        candidates = [retained.cut_before(period.end), max(retained.cut_after(period.end), first_whole)]
        latest = bounds[-1] if bounds else candidates[-1]
        ends = [at for at in candidates if retained.rollups_from < at <= latest]
    first, last = starts[0], max(ends, default=period.start)
    starts = [at for at in starts if at < last]
    ends = [at for at in ends if at > first]
    if not starts or not ends:
        return Nearest((retained.raw_from,), (retained.raw_from + retained.grain,))
    return Nearest(tuple(starts), tuple(ends))


def refusal(retained: Retained, period: Period, bounds: Sequence[datetime]) -> InvalidInputError:
    """What a caller is told whose question cannot be answered any more."""
    near = nearest(retained, period, bounds)
    minutes = retained.grain // timedelta(minutes=1)
    if period.start < retained.rollups_from:
        reason = f"Figures are kept from {instant_text(retained.rollups_from)} on."
    else:
        shown = instant_text(retained.raw_from)
        reason = f"Events before {shown} are not kept any more, only figures of every {minutes:,} minutes."
    issues = []
    if near.starts != (period.start,):
        cut = " The buckets of this series cut them." if bounds and retained.can_cut(period.start) else ""
        issues.append(_issue("from", reason + cut, near.starts))
    if near.ends != (period.end,):
        issues.append(_issue("to", reason, near.ends))
    return InvalidInputError(issues)


def _issue(name: str, reason: str, instants: Sequence[datetime]) -> InputIssue:
    named = " or ".join(map(instant_text, instants))
    return InputIssue(("query", "period", name), f"{reason} The nearest `{name}` that can be answered is {named}.")
