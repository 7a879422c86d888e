"""What happens to people of an account: champions who go, one who is left alone, seats that nobody uses."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from math import fsum
from statistics import quantiles
from typing import Final

import msgspec

from health.alarms import DEFAULTS, Alarm, AlarmType, Thresholds
from health.concentration import bus_factor, effective_users

# In accounts with fewer users, shares and quartiles say nothing: the busiest one is taken.
_USERS_FOR_SHARES: Final = 5


class UserActivity(msgspec.Struct, frozen=True, kw_only=True):
    """A user as of a day: active days of the last 28, days since the first one, features used, and the silence.

    `champion` is what somebody said of the user, None if nobody did. `expected` is false where nobody counts on any use:
    a role that was needed for the set-up only, and is done.
    """

    user: str
    active_days: int
    tenure_days: int
    features: int
    silence: float | None = None
    deprovisioned: bool = False
    champion: bool | None = None
    expected: bool = True


def user_silent(user: UserActivity, *, as_of: date, thresholds: Thresholds = DEFAULTS) -> Alarm | None:
    """Whether a user is silent for longer than the user's own cadence explains; whoever is not expected never is."""
    if not user.expected or user.deprovisioned or user.silence is None or user.silence < thresholds.silence_min:
        return None
    return Alarm(type=AlarmType.USER_SILENT, subject=user.user, as_of=as_of, evidence={"silence": user.silence})


def champions_of(users: Sequence[UserActivity], thresholds: Thresholds = DEFAULTS) -> frozenset[str]:
    """Who carries an account: who was named, and who is busy, broad and there for long enough; not who was unnamed."""
    least = _least_days(users, thresholds)
    carried = frozenset(user.user for user in users if _carries(user, users, least, thresholds))
    return frozenset(user.user for user in users if user.champion or (user.champion is None and user.user in carried))


def champions_lost(
    account: str,
    before: Sequence[UserActivity],
    now: Iterable[UserActivity],
    *,
    as_of: date,
    thresholds: Thresholds = DEFAULTS,
) -> tuple[Alarm, ...]:
    """Champions of 28 days ago who are gone: without access, not listed any more, or silent beyond their cadence."""
    there = {user.user: user for user in now}
    alarms = []
    for champion in sorted(champions_of(before, thresholds)):
        user = there.get(champion)
        why = _gone(user, thresholds)
        if why is not None:
            alarms.append(
                Alarm(
                    type=AlarmType.CHAMPION_LOST,
                    subject=account,
                    as_of=as_of,
                    evidence={"user": champion, "why": why},
                )
            )
    return tuple(alarms)


def single_threaded(
    account: str,
    active_days: Mapping[str, int],
    seats: float | None,
    *,
    as_of: date,
    thresholds: Thresholds = DEFAULTS,
) -> Alarm | None:
    """Whether an account with several seats hangs on one user, by the active days of each. Without usage it does not."""
    if seats is None or seats < thresholds.single_threaded_seats_min:
        return None
    days = [float(count) for count in active_days.values()]
    fewest, effective = bus_factor(days), effective_users(days)
    if fewest is None or effective is None:
        return None
    if (
        fewest > thresholds.single_threaded_bus_factor_max
        and effective >= thresholds.single_threaded_effective_users_below
    ):
        return None
    busiest = max(sorted(active_days), key=lambda user: active_days[user])
    evidence: dict[str, float | str] = {
        "user": busiest,
        "bus_factor": float(fewest),
        "effective_users": effective,
        "seats": seats,
    }
    return Alarm(type=AlarmType.SINGLE_THREADED, subject=account, as_of=as_of, evidence=evidence)


def seats_underused(
    account: str,
    *,
    seats: float | None,
    active_users: int | None,
    age_days: float,
    as_of: date,
    monthly_amount: float | None = None,
    thresholds: Thresholds = DEFAULTS,
) -> Alarm | None:
    """Whether too few of the seats that are paid for are used, after onboarding; with what the others cost a month.

    Active users are unknown (None) while no events come in at all, which is no sign of anything.
    """
    if seats is None or active_users is None or seats < thresholds.underused_seats_min:
        return None
    used = active_users / seats
    if age_days < thresholds.underused_age_days_min or used >= thresholds.underused_below:
        return None
    unused = seats - active_users
    evidence: dict[str, float | str] = {"seat_utilisation": used, "unused_seats": unused, "seats": seats}
    if monthly_amount is not None:
        evidence["unused_amount"] = unused * monthly_amount / seats
    return Alarm(type=AlarmType.SEATS_UNDERUSED, subject=account, as_of=as_of, evidence=evidence)


def _least_days(users: Sequence[UserActivity], thresholds: Thresholds) -> float | None:
    """On how many days those are active at least who carry an account; None where there are too few users to say so."""
    if len(users) < _USERS_FOR_SHARES:
        return None
    quartile = quantiles([one.active_days for one in users], n=4, method="inclusive")[2]
    return max(quartile, thresholds.champion_share_min * fsum(one.active_days for one in users))


def _carries(user: UserActivity, users: Sequence[UserActivity], least: float | None, thresholds: Thresholds) -> bool:
    if user.deprovisioned or not user.active_days or user.tenure_days < thresholds.champion_tenure_days_min:
        return False
    if user.features < thresholds.champion_features_min:
        return False
    if least is None:
        return user is max(sorted(users, key=lambda one: one.user), key=lambda one: one.active_days)
    return user.active_days >= least


def _gone(user: UserActivity | None, thresholds: Thresholds) -> str | None:
    if user is None:
        return "not listed any more"
    if user.deprovisioned:
        return "without access"
    return "silent" if user.silence is not None and user.silence >= thresholds.silence_min else None
