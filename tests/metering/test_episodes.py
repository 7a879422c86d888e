"""Alarms of days as episodes: each told once, whatever is scored again."""

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from health.alarms import Alarm, AlarmType, after_cooldown
from metering.health.alarming import Place
from metering.health.episodes import Episode, course_of

DAY = date(2026, 3, 1)
PLACE = Place(AlarmType.USER_SILENT, None)
COOLDOWN = 28
DAYS = st.sets(st.integers(0, 120), max_size=40)


class Log:
    """Episodes as they are kept."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Episode] = {}
        self.told: list[int] = []

    def score(self, days: Iterable[int], true: set[int]) -> None:
        """Look at days in order, on each of which it was so or not."""
        for number in days:
            day, cooldown = DAY + timedelta(days=number), timedelta(days=COOLDOWN)
            near = [
                each for each in self.kept.values() if each.last_on > day - cooldown and each.as_of < day + cooldown
            ]
            course = course_of(day, {PLACE: None} if number in true else {}, {PLACE: near} if near else {}, COOLDOWN)
            self.kept |= {each.id: each for each in course.changed}
            for is_told in course.begun.values():
                episode = Episode(UUID(int=len(self.kept)), day, day, is_told, is_withdrawn=False)
                self.kept[episode.id] = episode
                self.told += [number] if is_told else []

    def standing(self) -> list[tuple[int, int]]:
        """The first and last days of what is not withdrawn."""
        spans = [(each.as_of, each.last_on) for each in self.kept.values() if not each.is_withdrawn]
        return sorted(((first - DAY).days, (last - DAY).days) for first, last in spans)


@given(DAYS)
def test_an_episode_begins_after_as_many_quiet_days_as_the_cooldown_has(true: set[int]) -> None:
    """Scored once, days less than the cooldown apart are one episode, told on its first day; of single days that is what the
    core tells.
    """
    log = Log()
    log.score(range(121), true)
    spans: list[list[int]] = []
    for day in sorted(true):
        if spans and day - spans[-1][1] < COOLDOWN:
            spans[-1][1] = day
        else:
            spans.append([day, day])

    assert [tuple(span) for span in spans] == log.standing()
    assert [first for first, _ in spans] == log.told
    if all(first == last for first, last in spans):
        alarms = [Alarm(type=PLACE.type, subject="a", as_of=DAY + timedelta(days=day), evidence={}) for day in true]
        assert len(after_cooldown(alarms, {})) == len(log.told)


@given(DAYS, st.lists(st.tuples(st.integers(0, 28), DAYS), max_size=4))
def test_days_that_are_scored_again_tell_nobody_twice(true: set[int], again: list[tuple[int, set[int]]]) -> None:
    """Whatever days turn out to have been, every day on which it was so is in an episode, each episode begins on such a day, and
    nobody is told twice within the cooldown.
    """
    log = Log()
    log.score(range(121), true)
    for back, anew in again:
        first = 120 - back
        true = {day for day in true if day < first} | {day for day in anew if day >= first}
        log.score(range(first, 121), true)

    standing = log.standing()
    assert {first for first, _ in standing} <= true
    assert all(any(first <= day <= last for first, last in standing) for day in true)
    told = sorted(log.told)
    assert all(later - earlier >= COOLDOWN for earlier, later in pairwise(told))


def test_what_a_day_no_longer_has_is_marked_and_may_come_back() -> None:
    """It is withdrawn, stays on record, and is the same one where the day has it again."""
    log = Log()
    for true in ({5}, set(), {5}):
        log.score([5], true)
        (episode,) = log.kept.values()
        assert episode.is_withdrawn != bool(true)
        assert (episode.is_told, [5]) == (True, log.told)
    assert msgspec.structs.astuple(episode)[1:3] == (DAY + timedelta(days=5),) * 2
