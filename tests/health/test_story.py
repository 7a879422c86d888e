"""One account's year, day by day: six users become one, and the warnings come months before the renewal.

Six users begin. One was needed for the set-up only, one never needed it at all. Four settle into a cadence. A new feature
disrupts them; two fall silent. The champion takes another job. One is left.
"""

import random
from collections.abc import Callable
from datetime import date, timedelta
from statistics import median

import pytest

from health.alarms import AlarmType
from health.change import HealthChangeCause, change_between
from health.defaults import default_scorecards
from health.drops import drops, four_week_z
from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.people import UserActivity, champions_lost, single_threaded, user_silent
from health.score import Health, evaluate
from health.scorecards import Subject, card_for
from health.silence import silence
from health.stages import Life, Stage, onboarded_on, stage_of

START = date(2025, 1, 6)
LIFE = Life(starts_on=START, renews_on=START + timedelta(days=365))
LAUNCH, EXIT = 180, 215
# How often each comes on a working day, and from when to when, in days after the start.
USERS = {
    "champion": (0.95, 0, EXIT),
    "analyst": (0.6, 0, 365),
    "writer": (0.7, 5, LAUNCH),
    "planner": (0.6, 9, LAUNCH + 3),
    "engineer": (0.9, 0, 30),
    "manager": (1.0, 0, 2),
}
NAMES = list(USERS)


def simulated(seed: int) -> dict[str, list[int]]:
    """The days after the start on which each user was active."""
    rng = random.Random(seed)
    return {
        user: [
            day for day in range(first, last) if (START + timedelta(days=day)).weekday() < 5 and rng.random() < often
        ]
        for user, (often, first, last) in USERS.items()
    }


YEAR = simulated(1)


def user_as_of(user: str, day: int) -> UserActivity:
    """What is known of a user at the end of a day; the engineer of the set-up and the manager are not expected."""
    days = [one for one in YEAR[user] if one <= day]
    gaps = len(days) - 1
    return UserActivity(
        user=user,
        active_days=sum(one > day - 28 for one in days),
        tenure_days=day - days[0],
        features=5 if days[-1] - days[0] > 28 else 1,
        silence=silence(day - days[-1], gaps, days[-1] - days[0], usual_gap_days=1.5),
        expected=user not in {"engineer", "manager"} or day <= 30,
    )


def weeks_as_of(day: int) -> list[float]:
    """Whole weeks of activity since the onboarding, up to a day."""
    first = (onboarded_on(LIFE) - START).days
    days = [one for user in NAMES for one in YEAR[user]]
    ends = range(day + 1, first + 6, -7)
    return [float(sum(end - 7 <= one < end for one in days)) for end in ends][::-1]


def health_as_of(day: int, previous: str | None = None) -> Health:
    """The account's score on a day."""
    users = [user_as_of(user, day) for user in NAMES]
    expected = [user.active_days for user in users if user.expected]
    lost = champions_lost(
        "acme", [user_as_of(user, day - 28) for user in NAMES], users, as_of=START + timedelta(days=day)
    )
    z = four_week_z(weeks_as_of(day), typical=0.03) if len(weeks_as_of(day)) >= 12 else None
    found: dict[str, Measurement] = {
        "seat_utilisation": Observed(sum(one > 0 for one in expected) / len(expected)),
        "median_l28": Observed(float(median(expected))),
        "drop_z": Unknown("fewer than eight weeks before") if z is None else Observed(z),
        "breadth_core": NotApplicable("no core feature is named"),
        "champion_lost": Observed(float(bool(lost))),
    }
    on = START + timedelta(days=day)
    card = card_for(default_scorecards(), Subject.ACCOUNT, "health", {"stage": stage_of(LIFE, on).value})
    assert card is not None
    return evaluate(card, found, as_of=on, previous_band=previous)


def first(days: range, found: Callable[[int], bool]) -> int:
    """The first day on which something is found."""
    return next(day for day in days if found(day))


def test_a_benign_lapse_does_not_lower_the_score() -> None:
    """After the set-up two users are gone; no user is told as silent, and the score on day 120 is no lower than on 75."""
    told = [user_silent(user_as_of(user, day), as_of=START) for user in NAMES for day in range(60, LAUNCH)]
    early, later = health_as_of(75), health_as_of(120)

    assert {None} == set(told)
    assert early.score is not None
    assert later.score is not None
    assert later.score > early.score - 5
    assert later.band in {"healthy", "thriving"}


@pytest.mark.parametrize("user", ["writer", "planner"])
def test_users_who_fall_silent_are_told_within_their_cadence(user: str) -> None:
    """Each of the two is told as silent within two weeks of the last use."""
    day = first(range(LAUNCH, 365), lambda day: user_silent(user_as_of(user, day), as_of=START) is not None)

    assert 0 < day - YEAR[user][-1] <= 14


def test_the_drop_is_told_within_four_weeks_and_long_before_the_renewal() -> None:
    """The account's usage drops when two stop: this is told within four weeks, more than 120 days before the renewal."""

    def dropped(day: int) -> bool:
        return bool(drops({"acme": weeks_as_of(day)}, segment="all", as_of=START).alarms)

    day = first(range(LAUNCH, 365, 7), dropped)
    assert day - LAUNCH <= 35
    assert 365 - day > 120
    assert not any(dropped(day) for day in range(150, LAUNCH, 7))


def test_the_lost_champion_caps_the_band_and_one_is_left() -> None:
    """The champion's silence is told, caps the band at at_risk, and leaves one user, all 120 days before the renewal."""
    before = [user_as_of(user, EXIT - 10) for user in NAMES]

    def lost(day: int) -> bool:
        return bool(champions_lost("acme", before, [user_as_of(user, day) for user in NAMES], as_of=START))

    def alone(day: int) -> bool:
        active = {user: user_as_of(user, day).active_days for user in NAMES}
        found = single_threaded("acme", active, 6, as_of=START)
        return found is not None and found.type is AlarmType.SINGLE_THREADED and found.evidence["user"] == "analyst"

    day = first(range(EXIT, 365), lost)
    assert day - EXIT <= 14
    assert health_as_of(day).band == "at_risk"
    assert first(range(EXIT, 365), alone) <= 365 - 120


def test_the_year_is_explained() -> None:
    """From its best to its worst the score fell by what the parts say; the cap and usage are told, and they add up."""
    best, worst = health_as_of(LAUNCH - 1), health_as_of(EXIT + 14)
    change = change_between(best, worst)

    assert stage_of(LIFE, START + timedelta(days=300)) is Stage.RENEWAL
    assert change.difference is not None
    assert change.difference < -20
    assert sum(part.contribution for part in change.parts) == pytest.approx(change.difference, abs=1e-9)
    assert HealthChangeCause.VALUE in {part.cause for part in change.parts}


def test_stages_follow_one_another() -> None:
    """Trial, onboarding until activation or 60 days, adoption, mature at 180 days, renewal 90 days before, churned."""
    life = Life(
        starts_on=START,
        trial_ends_on=START + timedelta(days=14),
        renews_on=START + timedelta(days=365),
        ends_on=START + timedelta(days=400),
    )
    days = (0, 13, 14, 59, 60, 179, 180, 274, 275, 399, 400)
    early = Life(starts_on=START, activated_on=START + timedelta(days=20))

    assert [
        "trial",
        "trial",
        "onboarding",
        "onboarding",
        "adoption",
        "adoption",
        "mature",
        "mature",
        "renewal",
        "renewal",
        "churned",
    ] == [stage_of(life, START + timedelta(days=day)).value for day in days]
    assert stage_of(early, START + timedelta(days=20)) is Stage.ADOPTION
