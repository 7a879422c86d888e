"""The metrics that scorecards may use: what each is, in which unit, of whom.

What a metric is calculated from is not known here. A value that is not there is told as unknown or as not applicable,
never as zero (see measurements.py); the descriptions say when it is which.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from health.scorecards import Subject

Purpose: TypeAlias = tuple[Subject, str]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric by its key. `reads` are the scores that it is made of, as (subject, purpose); mostly none.

    `window_days` is over how many days up to the day it looks, None where it does not.
    """

    key: str
    unit: str
    subjects: frozenset[Subject]
    description: str
    window_days: int | None = None
    reads: tuple[Purpose, ...] = ()


_ACCOUNT: Final = frozenset({Subject.ACCOUNT})
_PAYING: Final = frozenset({Subject.ACCOUNT, Subject.SUBSCRIPTION})
_ALL: Final = frozenset(Subject)
_USER: Final = frozenset({Subject.USER})
_SUBSCRIPTION_HEALTH: Final = ((Subject.SUBSCRIPTION, "health"),)


def _metric(
    key: str,
    unit: str,
    subjects: frozenset[Subject],
    description: str,
    window_days: int | None = None,
    reads: tuple[Purpose, ...] = (),
) -> Metric:
    return Metric(key=key, unit=unit, subjects=subjects, description=description, window_days=window_days, reads=reads)


_METRICS: Final = (
    _metric("active_users", "users", _PAYING, "users with an active day; unknown while no events come in at all", 28),
    _metric("seat_utilisation", "share", _PAYING, "active users by seats; not applicable without seats", 28),
    _metric("unused_seats", "seats", _PAYING, "seats less active users, 0 at least; not applicable without seats", 28),
    _metric("stickiness", "share", _PAYING, "the mean share of days on which an active user is active", 28),
    _metric("median_l28", "days", _PAYING, "the median of active days over expected users, zeros included", 28),
    _metric("active_days", "days", _ALL, "days with activity", 28),
    _metric(
        "active_days_share_of_own", "share", _USER, "active days by the mean of the 84 days before, in 28 days", 28
    ),
    _metric("features_used", "features", _ALL, "features that were used", 28),
    _metric("breadth", "share", _ALL, "features used by features entitled to", 28),
    _metric("breadth_core", "share", _ALL, "core features used by core features; unknown where none is named", 28),
    _metric(
        "effective_features", "features", _ALL, "exp of the entropy of events over features; 20 events or more", 28
    ),
    _metric(
        "drop_z", "z", _ALL, "the fall of four weeks against the twelve before (drops.py); unknown below 8 weeks", 112
    ),
    _metric(
        "drop_z_week", "z", _ALL, "the fall of one week against its own twelve (drops.py); unknown below 8 weeks", 112
    ),
    _metric(
        "growth_users", "log", _PAYING, "ln of active users by those of the 28 days before; unknown below 56 days", 56
    ),
    _metric("trend", "share", _ALL, "the change for four weeks, by the Theil-Sen slope of 12; unknown below 8", 84),
    _metric("silence", "nats", _USER, "how unusual the silence is for this user (silence.py); unknown below 3 gaps"),
    _metric("p_active_next", "probability", _ALL, "of any activity in the next 28 days (silence.py)"),
    _metric("expected", "flag", _USER, "0 for who is done with the set-up or has no access any more, otherwise 1"),
    _metric("champion", "flag", _USER, "1 for who carries the account (people.py), otherwise 0", 28),
    _metric(
        "trouble_share", "share", _USER, "events that are errors, failures or calls for help; 20 events or more", 28
    ),
    _metric("median_gap_days", "days", _USER, "the median of the days between neighbouring active days", 364),
    _metric(
        "usage_interval_days", "days", _ACCOUNT, "the least of 1, 7, 14 and 28 that covers 80 % of users' gaps", 364
    ),
    _metric("median_events", "events", _PAYING, "the median of events over active users", 28),
    _metric("power_users", "users", _PAYING, "users with 20 active days or more", 28),
    _metric("core_users", "users", _PAYING, "users with 8 to 19 active days", 28),
    _metric("casual_users", "users", _PAYING, "users with 1 to 7 active days", 28),
    _metric("users_new", "users", _ACCOUNT, "users who were active for the first time", 28),
    _metric("users_retained", "users", _ACCOUNT, "users who were active, and in the 28 days before too", 56),
    _metric(
        "users_resurrected", "users", _ACCOUNT, "users who were active, before too, and not in the 28 days before", 364
    ),
    _metric("users_dormant", "users", _ACCOUNT, "users who were active in the 28 days before, and not since", 56),
    _metric("dormant_users", "users", _ACCOUNT, "expected users who were active once, and not in 28 days", 364),
    _metric(
        "never_used_users",
        "users",
        _ACCOUNT,
        "users with access who never were active; unknown if nobody says who",
        364,
    ),
    _metric("several_devices_share", "share", _PAYING, "active users on two devices or more, by active users", 28),
    _metric(
        "mix_shift", "share", _ALL, "Jensen-Shannon divergence of the mix of features from the 84 days before", 112
    ),
    _metric(
        "top_share", "share", _ACCOUNT, "the busiest user's share of events; not applicable below 3 active users", 28
    ),
    _metric("effective_users", "users", _ACCOUNT, "1 / sum of squared shares of active days (concentration.py)", 28),
    _metric(
        "gini", "share", _ACCOUNT, "of events over seats, or active users if these are more (concentration.py)", 28
    ),
    _metric("bus_factor", "users", _ACCOUNT, "fewest users with half of the active days (concentration.py)", 28),
    _metric("activation", "share", _ALL, "steps of the onboarding checklist that are done"),
    _metric("time_to_value_days", "days", _PAYING, "from the start to the first use of a core feature"),
    _metric("cohort_position", "percentile", _PAYING, "active days so far among past subscriptions of the same age"),
    _metric(
        "allowance_use", "share", _PAYING, "quantity by what is included so far; unknown in a period's first fifth"
    ),
    _metric("age_days", "days", _ALL, "since the subscription started"),
    _metric("renewal_days", "days", _PAYING, "to the renewal; below zero when it is past due"),
    _metric("trial_days_left", "days", _PAYING, "to the end of the trial; not applicable without one"),
    _metric("monthly_amount", "amount", _PAYING, "recurring revenue of a month, in the currency of the subscription"),
    _metric(
        "cost_per_active_ratio", "ratio", _PAYING, "amount by active user to amount by seat; unknown without either", 28
    ),
    _metric("cost_per_active", "amount", _PAYING, "amount by active user; unknown without either", 28),
    _metric("nps", "nps", _PAYING, "promoters less detractors in percent, the latest of each respondent", 180),
    _metric("csat", "percent", _PAYING, "respondents with 4 or 5 of 5, the latest of each", 180),
    _metric("ces", "points", _PAYING, "the mean of effort scores, the latest of each respondent", 180),
    _metric("tickets_28d", "tickets", _PAYING, "new support tickets", 28),
    _metric("tickets_28d_per_seat", "tickets/seats", _PAYING, "new support tickets by seats", 28),
    _metric("tickets_severe_open", "tickets", _PAYING, "open tickets of the highest severity"),
    _metric("invoice_overdue_days", "days", _PAYING, "of the invoice that is overdue longest; 0 if none is"),
    _metric("pulse", "1..5", _PAYING, "what the customer success manager says, 1 critical to 5 excellent"),
    _metric("touch_days", "days", _ALL, "since the last contact in which both sides spoke"),
    _metric(
        "champion_lost", "flag", _ACCOUNT, "1 where a champion of 28 days ago is gone (people.py), otherwise 0", 28
    ),
    _metric("seats", "seats", _PAYING, "seats that are paid for; not applicable where none are sold"),
    _metric("subscriptions_score_mean", "points", _ACCOUNT, "the mean by amount", None, _SUBSCRIPTION_HEALTH),
    _metric("subscriptions_score_lowest", "points", _ACCOUNT, "the lowest score", None, _SUBSCRIPTION_HEALTH),
)

CATALOGUE: Final[Mapping[str, Metric]] = {metric.key: metric for metric in _METRICS}
