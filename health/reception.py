"""How a feature is taken up: who of those who could use it does, week by week; who comes back; and what most make of it.

Days are counted from the day on which anybody first used the feature: that is day 0.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

_WEEK: Final = 7
# So many days after the first use show what a user makes of a feature, and on so many of them it is used by who keeps to it.
TRIED_DAYS: Final = 28
ADOPTED_DAYS_MIN: Final = 3


class Uptake(msgspec.Struct, frozen=True):
    """On which days a user was active where the feature is, and on which of them the feature was used; in order."""

    active: tuple[int, ...]
    used: tuple[int, ...]


class UptakeWeek(msgspec.Struct, frozen=True):
    """A whole week: who used the feature in it, for the first time or again; and by its end, who has and who could have."""

    week: int
    users: int
    new_users: int
    adopters: int
    eligible: int


class ReturnWeek(msgspec.Struct, frozen=True):
    """Of those whose week since the first use is over, how many used the feature in it; week 0 begins with that use."""

    week: int
    users: int
    active: int


class Reception(msgspec.Struct, frozen=True):
    """What those make of a feature who could use it: each of them counts once.

    Adopted: used on three days of the 28 from the first use on. Lukewarm: on fewer, and the 28 days are over. Too early: on
    fewer, and they are not. Untouched: never used.
    """

    adopted: int
    lukewarm: int
    too_early: int
    untouched: int


def weeks_of_uptake(users: Sequence[Uptake], days: int) -> list[UptakeWeek]:
    """The whole weeks of so many days."""
    used = Counter(week for user in users for week in {day // _WEEK for day in user.used})
    first_used = Counter(user.used[0] // _WEEK for user in users if user.used)
    first_active = Counter(user.active[0] // _WEEK for user in users)
    weeks = []
    adopters = eligible = 0
    for week in range(days // _WEEK):
        adopters += first_used[week]
        eligible += first_active[week]
        weeks.append(UptakeWeek(week, used[week], first_used[week], adopters, eligible))
    return weeks


def weeks_of_return(users: Sequence[Uptake], days: int) -> list[ReturnWeek]:
    """By weeks since each user's first use, as far as they are over after so many days."""
    whole = {place: (days - user.used[0]) // _WEEK for place, user in enumerate(users) if user.used}
    had = Counter(week for count in whole.values() for week in range(count))
    active = Counter(
        week
        for place, count in whole.items()
        for week in {(day - users[place].used[0]) // _WEEK for day in users[place].used}
        if week < count
    )
    return [ReturnWeek(week, had[week], active[week]) for week in sorted(had)]


def reception_of(users: Sequence[Uptake], days: int) -> Reception:
    """What users make of it after so many days."""
    adopted = lukewarm = too_early = 0
    for user in users:
        if user.used:
            end = user.used[0] + TRIED_DAYS
            is_adopted = sum(day < end for day in user.used) >= ADOPTED_DAYS_MIN
            adopted += is_adopted
            lukewarm += not is_adopted and end <= days
            too_early += not is_adopted and end > days
    return Reception(adopted, lukewarm, too_early, sum(not user.used for user in users))
