"""How many users are there at once, on demand: the most of everybody, of each group, and of each bucket of time."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from metering.health.sessions import Sessions, ask_sessions
from metering.limits import Limits
from metering.periods import Bucket
from metering.questions import Question
from metering.rollups.read import Key, series_bounds
from metering.store.session_query import peaks_by_bucket_statement, peaks_statement
from metering.store.snapshot import Snapshot


class Peak(msgspec.Struct, frozen=True):
    """The most users that were there at once, and the first instant of it."""

    users: int
    at: datetime


class GroupPeak(msgspec.Struct, frozen=True):
    """The same of a group, by the values that it has in common."""

    key: Key
    peak: Peak


class UsersAtOnce(msgspec.Struct, frozen=True, kw_only=True):
    """Users at once; no peak where nobody was there. Groups are those of the question, the largest first."""

    peak: Peak | None
    groups: Sequence[GroupPeak]
    all_groups: int
    # Of each bucket, and when it begins; empty where none is asked for.
    starts: Sequence[datetime]
    users: Sequence[int]


async def read_users_at_once(
    snapshot: Snapshot, question: Question, bucket: Bucket | None, first: int, limits: Limits
) -> UsersAtOnce:
    """The peak of everything together, of the `first` groups of the question, and of each bucket.

    A session lasts from its first use to its last, and who begins as another one ends is there with that one. What is grouped is
    cut to sessions in each group by itself, so peaks of groups do not add up. Raises InvalidInputError as `ask_sessions` does.
    """
    sessions = await ask_sessions(snapshot, question, limits)
    whole, _ = await _peaks(sessions, (), 1)
    keys = tuple(dimension.value for dimension in question.group_by)
    groups, count = await _peaks(sessions, keys, first) if keys else ([], 0)
    starts, users = ([], []) if bucket is None else await _by_bucket(sessions, bucket)
    return UsersAtOnce(
        peak=whole[0].peak if whole else None, groups=groups, all_groups=count, starts=starts, users=users
    )


async def _peaks(sessions: Sessions, keys: tuple[str, ...], first: int) -> tuple[list[GroupPeak], int]:
    rows = await sessions.rows(peaks_statement(sessions.filters, keys), first=first)
    peaks = [GroupPeak(tuple(row[f"key_{name}"] for name in keys), Peak(row["users"], row["at"])) for row in rows]
    return peaks, rows[0]["groups"] if rows else 0


async def _by_bucket(sessions: Sessions, bucket: Bucket) -> tuple[Sequence[datetime], list[int]]:
    bounds = series_bounds(sessions.question, bucket)
    rows = await sessions.rows(peaks_by_bucket_statement(sessions.filters), bounds=bounds)
    users = [row["users"] for row in rows]
    assert len(users) == len(bounds) - 1, "each bound begins a bucket, which has a row"
    return bounds[:-1], users
