"""The arithmetic of billing periods: counted from an anchor, in a zone, by an interval.

Each bound is counted from the anchor and never from the bound before it: from 31 January on, months begin on 28 February
and again on 31 March. The wall clock of a bound is the anchor's; where a change of the clocks skips it, the bound is as much
later as was skipped, and where it comes twice, the first one counts.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import Final

from rating.periods import Period


class BillingInterval(Enum):
    """How long a billing period is, by the calendar."""

    WEEK = "WEEK"
    MONTH = "MONTH"
    QUARTER = "QUARTER"
    YEAR = "YEAR"


_WEEK: Final = timedelta(days=7)
_MONTHS: Final = {BillingInterval.MONTH: 1, BillingInterval.QUARTER: 3, BillingInterval.YEAR: 12}


def period_at(instant: datetime, anchor: datetime, zone: tzinfo, interval: BillingInterval) -> Period:
    """The whole billing period that an instant lies in, which may be before the anchor; both instants are UTC."""
    index = _estimate(instant, anchor, zone, interval)
    # The estimate is of months and weeks; the day and the time of day decide.
    while bound(index, anchor, zone, interval) > instant:
        index -= 1
    while bound(index + 1, anchor, zone, interval) <= instant:
        index += 1
    return Period(bound(index, anchor, zone, interval), bound(index + 1, anchor, zone, interval))


def bound(index: int, anchor: datetime, zone: tzinfo, interval: BillingInterval) -> datetime:
    """The index-th bound after the anchor (before it, where the index is below zero), in UTC."""
    if index == 0:
        # The anchor itself, also where its wall clock comes twice and it is the second.
        return anchor
    local = anchor.astimezone(zone).replace(fold=0)
    if interval is BillingInterval.WEEK:
        return (local + index * _WEEK).astimezone(UTC)
    return _months_later(local, index * _MONTHS[interval]).astimezone(UTC)


def _months_later(local: datetime, months: int) -> datetime:
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day)


def _estimate(instant: datetime, anchor: datetime, zone: tzinfo, interval: BillingInterval) -> int:
    if interval is BillingInterval.WEEK:
        return (instant - anchor) // _WEEK
    at, start = instant.astimezone(zone), anchor.astimezone(zone)
    return ((at.year - start.year) * 12 + at.month - start.month) // _MONTHS[interval]
