"""How features are taken up: by hand, and as plain counting says."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from health.reception import Reception, ReturnWeek, Uptake, UptakeWeek, reception_of, weeks_of_return, weeks_of_uptake

# Whoever used the feature was active, somebody used it on day 0, and five weeks and two days are over.
DAYS: Final = 37
KEEN: Final = Uptake((0, 1, 2, 30), (0, 1, 2))
LATE: Final = Uptake((5, 20), (20,))
COOL: Final = Uptake((5, 6, 33, 34), (5, 6, 33, 34))
AWAY: Final = Uptake((25,), ())
PLANTED: Final = (KEEN, LATE, COOL, AWAY)


@st.composite
def uptakes(draw: st.DrawFn) -> Uptake:
    """A user who was active on some days, and used the feature on some of these."""
    active = sorted(draw(st.sets(st.integers(0, DAYS - 1), min_size=1)))
    return Uptake(tuple(active), tuple(day for day in active if draw(st.booleans())))


def test_uptake_by_hand() -> None:
    """Weeks that are over tell who used it, who was new, and how many have and could have by their ends."""
    assert weeks_of_uptake(PLANTED, DAYS) == [
        UptakeWeek(week=0, users=2, new_users=2, adopters=2, eligible=3),
        UptakeWeek(week=1, users=0, new_users=0, adopters=2, eligible=3),
        UptakeWeek(week=2, users=1, new_users=1, adopters=3, eligible=3),
        UptakeWeek(week=3, users=0, new_users=0, adopters=3, eligible=4),
        UptakeWeek(week=4, users=1, new_users=0, adopters=3, eligible=4),
    ]


def test_returns_by_hand() -> None:
    """A user counts in the weeks since the own first use that are over, and comes back in those with a use."""
    assert [(each.users, each.active) for each in weeks_of_return(PLANTED, DAYS)] == [
        *((3, 3), (3, 0)),
        *((2, 0), (2, 0)),
        (1, 0),
    ]
    assert weeks_of_return([AWAY], DAYS) == []
    assert weeks_of_return([COOL], DAYS + 5)[4] == ReturnWeek(week=4, users=1, active=1)


def test_reception_by_hand() -> None:
    """Three days of the first 28 adopt; fewer are lukewarm once these are over, also where more came later."""
    assert reception_of(PLANTED, DAYS) == Reception(adopted=1, lukewarm=1, too_early=1, untouched=1)
    assert reception_of([LATE], 20 + 28) == Reception(adopted=0, lukewarm=1, too_early=0, untouched=0)
    assert reception_of([LATE], 20 + 27) == Reception(adopted=0, lukewarm=0, too_early=1, untouched=0)


@given(st.lists(uptakes(), max_size=8), st.integers(0, DAYS))
def test_figures_are_what_counting_says(users: list[Uptake], extra: int) -> None:
    """Of any users: everybody counts once in the reception, and each week says what a look at each user and day says."""
    days = DAYS + extra
    made = reception_of(users, days)
    assert made.adopted + made.lukewarm + made.too_early + made.untouched == len(users)
    for each in weeks_of_uptake(users, days):
        within = range(7 * each.week, 7 * each.week + 7)
        assert each.users == len([user for user in users if {*within} & {*user.used}])
        assert each.new_users == len([user for user in users if user.used and user.used[0] in within])
        assert each.adopters == len([user for user in users if any(day < within.stop for day in user.used)])
        assert each.eligible == len([user for user in users if any(day < within.stop for day in user.active)])
    for week in weeks_of_return(users, days):
        had = [user for user in users if user.used and user.used[0] + 7 * week.week + 7 <= days]
        ages = [{(day - user.used[0]) // 7 for day in user.used} for user in had]
        assert (week.users, week.active) == (len(had), sum(week.week in of for of in ages))
