"""Alarms of days as episodes: from the first day on which something was so to the last, told once. Pure.

An episode goes on over days on which it was not so, as long as they are fewer than the cooldown. Days are looked at in order,
and again when something comes late: what a day no longer has ends before it, or was none at all, which is marked; what it has
now begins earlier, and nobody is told twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from uuid import UUID

import msgspec

from metering.health.alarming import Place


class Episode(msgspec.Struct, frozen=True):
    """When something was so: from a day on, to the last one seen; whether somebody was told, and whether it was none."""

    id: UUID
    as_of: date
    last_on: date
    is_told: bool
    is_withdrawn: bool


class Course(msgspec.Struct, frozen=True):
    """What becomes of episodes on a day: which are others now, and what begins, told or not."""

    changed: Sequence[Episode]
    begun: Mapping[Place, bool]


def course_of(
    day: date, found: Mapping[Place, object], known: Mapping[Place, Sequence[Episode]], cooldown_days: int
) -> Course:
    """What the alarms of a day do to the episodes that are known within the cooldown of it, before and after."""
    changed = [
        episode for place, of_place in known.items() if place not in found for episode in _without(day, of_place)
    ]
    begun = {}
    for place in found:
        episode = _with(day, known.get(place, ()), timedelta(days=cooldown_days))
        if episode is None:
            begun[place] = not any(each.is_told for each in known.get(place, ()))
        elif episode not in known[place]:
            changed.append(episode)
    return Course(changed, begun)


def _without(day: date, episodes: Sequence[Episode]) -> Iterator[Episode]:
    """What was so on the day, and is not."""
    for each in episodes:
        if each.is_withdrawn or not each.as_of <= day <= each.last_on:
            continue
        if each.as_of == day:
            yield msgspec.structs.replace(each, is_withdrawn=True)
        else:
            yield msgspec.structs.replace(each, last_on=day - timedelta(days=1))


def _with(day: date, episodes: Sequence[Episode], cooldown: timedelta) -> Episode | None:
    """The episode that the day belongs to, as it is with it; None where there is none yet."""
    # Should two be near, the later one goes on.
    standing = sorted((each for each in episodes if not each.is_withdrawn), key=lambda each: each.as_of, reverse=True)
    for each in standing:
        if each.as_of <= day < each.last_on + cooldown:
            return msgspec.structs.replace(each, last_on=max(day, each.last_on))
    for each in episodes:
        if each.is_withdrawn and each.as_of == day:
            return msgspec.structs.replace(each, last_on=day, is_withdrawn=False)
    for each in standing:
        if day < each.as_of < day + cooldown:
            return msgspec.structs.replace(each, as_of=day)
    return None
