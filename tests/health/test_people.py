"""Champions, an account that hangs on one user, unused seats; and how usage is spread over users."""

import random
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest

from health.alarms import Alarm, AlarmType, Thresholds
from health.concentration import bus_factor, effective_users, gini, top_share
from health.people import UserActivity, champions_lost, champions_of, seats_underused, single_threaded, user_silent
from tests.health.cards import AS_OF


def user(name: str, active_days: int = 10, **fields: Any) -> UserActivity:
    """A user who has been there for long, with many features."""
    return UserActivity(**{"user": name, "active_days": active_days, "tenure_days": 200, "features": 5, **fields})


MANY = [user("ann", 20), user("bob", 18), *(user(f"user {number}", 6) for number in range(4))]


def test_a_champion_is_busy_broad_and_there_for_long() -> None:
    """In the top quarter, with a fifth of all active days, 28 days and three features; whoever is named is, unnamed not."""
    assert {"ann", "bob"} == champions_of(MANY)
    assert {"bob"} == champions_of([user("ann", 20, tenure_days=27), *MANY[1:]])
    assert {"bob"} == champions_of([user("ann", 20, features=2), *MANY[1:]])
    assert {"bob"} == champions_of([user("ann", 20, champion=False), *MANY[1:]])
    assert {"ann", "bob", "new"} == champions_of([*MANY, user("new", 0, champion=True)])
    assert frozenset() == champions_of([user(f"user {number}", 6) for number in range(6)])
    assert frozenset() == champions_of([])


def test_among_few_users_the_busiest_is_the_champion() -> None:
    """With fewer than five users shares say nothing; the busiest one is taken, the first by name of those alike."""
    assert {"bob"} == champions_of([user("ann", 3), user("bob", 4)])
    assert {"ann"} == champions_of([user("bob", 4), user("ann", 4)])
    assert frozenset() == champions_of([user("ann", 0)])


def test_a_champion_is_lost_when_gone_or_silent() -> None:
    """A champion of 28 days ago who has no access, is not listed, or is silent beyond the own cadence, is told with why."""

    def lost(*now: UserActivity) -> list[tuple[object, object]]:
        alarms = champions_lost("acme", MANY, now, as_of=AS_OF)
        assert all(alarm.type is AlarmType.CHAMPION_LOST for alarm in alarms)
        return [(alarm.evidence["user"], alarm.evidence["why"]) for alarm in alarms]

    assert lost(user("ann", silence=3.9), user("bob")) == []
    assert lost(user("ann", silence=4.0), user("bob", deprovisioned=True)) == [
        ("ann", "silent"),
        ("bob", "without access"),
    ]
    assert lost(user("bob", silence=None)) == [("ann", "not listed any more")]


def test_a_benign_lapse_is_not_told() -> None:
    """A user who was needed for the set-up only may be silent for ever; who is expected is told from 4 on."""

    def told(**fields: Any) -> Alarm | None:
        return user_silent(user("ann", **fields), as_of=AS_OF)

    assert told(silence=9.0, expected=False) is None
    assert told(silence=9.0, deprovisioned=True) is None
    assert told(silence=None) is None
    assert told(silence=3.99) is None
    alarm = told(silence=4.0)
    assert alarm is not None
    assert (AlarmType.USER_SILENT, "ann", {"silence": 4.0}) == (alarm.type, alarm.subject, alarm.evidence)


def test_an_account_that_hangs_on_one_user() -> None:
    """One user with half of the days, in an account of three seats or more; without usage, or seats, it is not told."""

    def told(seats: float | None, *days: int, **thresholds: Any) -> Alarm | None:
        active = {f"user {number}": count for number, count in enumerate(days)}
        return single_threaded("acme", active, seats, as_of=AS_OF, thresholds=Thresholds(**thresholds))

    alarm = told(3, 20, 2)
    assert alarm is not None
    assert {"user": "user 0", "bus_factor": 1.0, "seats": 3}.items() <= alarm.evidence.items()
    assert told(2, 20, 2) is None
    assert told(None, 20, 2) is None
    assert told(5, 0, 0) is None
    assert told(5, 10, 9, 8) is None
    assert told(5, 10, 9, 8, single_threaded_effective_users_below=2.99) is not None


def test_unused_seats_are_told_with_what_they_cost() -> None:
    """Less than half of three seats or more, after onboarding, and with what the unused ones cost; unknown use is not told."""
    plain: dict[str, Any] = {"seats": 10.0, "active_users": 4, "age_days": 100, "as_of": AS_OF, "monthly_amount": 500.0}

    def told(**fields: Any) -> Alarm | None:
        return seats_underused("acme", **{**plain, **fields})

    alarm = told()
    assert alarm is not None
    assert alarm.evidence == {"seat_utilisation": 0.4, "unused_seats": 6.0, "seats": 10.0, "unused_amount": 300.0}
    for quiet in ({"active_users": 5}, {"age_days": 59}, {"seats": 2.0}, {"seats": None}, {"active_users": None}):
        assert told(**quiet) is None
    assert told(active_users=0, monthly_amount=None) is not None


# ---------------------------------------------------------------- concentration


def test_concentration_is_what_fractions_and_pairs_say() -> None:
    """Top share, effective users, bus factor and Gini, against sums of fractions, every subset, and every pair."""
    rng = random.Random(1)
    for _ in range(400):
        amounts = [rng.choice([0, 1, 5, rng.randint(0, 1000)]) for _ in range(rng.randint(0, 8))]
        values, total = [float(amount) for amount in amounts], sum(amounts)
        if total == 0:
            assert (None, None, None) == (effective_users(values), bus_factor(values), gini(values))
            continue
        shares = [Fraction(amount, total) for amount in amounts]
        assert effective_users(values) == pytest.approx(float(1 / sum(share * share for share in shares)))
        assert bus_factor(values) == next(
            size
            for size in range(1, len(shares) + 1)
            if any(sum(chosen) >= Fraction(1, 2) for chosen in combinations(shares, size))
        )
        if len(amounts) > 1:
            pairs = sum(abs(one - other) for one in amounts for other in amounts)
            count = len(amounts)
            uncorrected = Fraction(pairs, 2 * count * total)
            assert gini(values) == pytest.approx(float(uncorrected * count / (count - 1)))
        if len(amounts) > 2:
            assert top_share(values, 2) == pytest.approx(float(sum(sorted(shares)[-2:])))


def test_of_few_users_nothing_is_said() -> None:
    """A top share needs three users, a Gini coefficient two."""
    assert top_share([1.0, 2.0], 1) is None
    assert gini([1.0]) is None
