"""Which ways users walk, on demand: from which feature to which other one, how often, and how much of it is routine."""

from collections.abc import Sequence
from typing import Any

import msgspec

from metering.health.sessions import ask_sessions
from metering.limits import Limits
from metering.periods import Bucket
from metering.questions import Question
from metering.rollups.read import series_bounds
from metering.store.session_query import ways_statement
from metering.store.snapshot import Snapshot


class Place(msgspec.Struct, frozen=True):
    """A feature of a product."""

    product: str
    feature: str


class Way(msgspec.Struct, frozen=True):
    """Two features that users use one right after the other: how often, by how many of them, on how many days of each."""

    first: Place
    then: Place
    times: int
    users: int
    days: int


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The ways that are walked most often, and what all of them come to.

    Users and active days are of who used anything that is asked for; walkers are those with a way. Routine days are those on
    which users walked the way that each of them walked on most days.
    """

    ways: Sequence[Way]
    all_ways: int
    all_times: int
    users: int
    walkers: int
    active_days: int
    routine_days: int


async def read_ways(snapshot: Snapshot, question: Question, first: int, limits: Limits, *, repeats: bool) -> Ways:
    """The `first` ways, those that are walked most often first; from a feature to itself only with `repeats`.

    Days are of the question's zone; its groups are left aside. Raises InvalidInputError as `ask_sessions` does.
    """
    sessions = await ask_sessions(snapshot, question, limits)
    bounds = series_bounds(question, Bucket.DAY)
    rows = await sessions.rows(ways_statement(sessions.filters), bounds=bounds, repeats=repeats, first=first)
    total = rows[0]
    return Ways(
        ways=[_way(row) for row in rows if row["times"] is not None],
        all_ways=total["all_ways"],
        all_times=total["all_times"],
        users=total["all_users"],
        walkers=total["walkers"],
        active_days=total["active_days"],
        routine_days=total["routine_days"],
    )


def _way(row: Any) -> Way:
    return Way(
        first=Place(row["first_product"], row["first_feature"]),
        then=Place(row["then_product"], row["then_feature"]),
        times=row["times"],
        users=row["users"],
        days=row["days"],
    )
