"""Which periods that are over are looked at: those that ended while nobody evaluated; and for what came late, the last ones.
Pure.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from metering.alerts.figures import Look
from metering.alerts.rules import AlertRule, Amount, Quantity, Slice
from metering.limits import Limits
from metering.periods import Bucket, Period, bucket_bounds, zone_of

_INSTANT: Final = timedelta.resolution
# But for a handful in the history of zones no bucket is longer.
_LONGEST: Final = {
    Bucket.MINUTE: timedelta(minutes=1),
    Bucket.HOUR: timedelta(hours=2),
    Bucket.DAY: timedelta(hours=26),
    Bucket.WEEK: timedelta(days=7, hours=2),
    Bucket.MONTH: timedelta(days=31, hours=2),
}


def past_looks(rule: AlertRule, at: datetime, limits: Limits) -> list[Look]:
    """What is looked at of the time before the running periods, the oldest first; of the time since the rule was put."""
    since = rule.changed_at if rule.evaluated_to is None else max(rule.evaluated_to, rule.changed_at)
    measure = rule.definition.measure
    if not isinstance(measure, Quantity | Amount):
        return [Look(rule=rule, at=at, over_since=since)]
    periods = past_periods(measure.slice, since, at, limits)
    return [Look(rule=rule, at=each.start) for each in periods if each.end > rule.changed_at]


def past_periods(cut: Slice, since: datetime, at: datetime, limits: Limits) -> list[Period]:
    """The calendar periods that are over at an instant and were not at an earlier one, so many at most, the newest of them; and
    besides the last one, and those that ended within `alert_late_seconds_max`.
    """
    zone = zone_of(cut.time_zone)
    start = bucket_bounds(Period(at, at + _INSTANT), zone, cut.bucket)[0]
    late = at - timedelta(seconds=limits.alert_late_seconds_max)
    earliest = start - limits.alert_periods_max * _LONGEST[cut.bucket]
    wanted = max(min(since, late, start - _INSTANT), earliest)
    bounds = bucket_bounds(Period(wanted, start), zone, cut.bucket)
    periods = [Period(*each) for each in pairwise(bounds)]
    return periods[-limits.alert_periods_max :]
