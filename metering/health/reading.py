"""Scores as they are kept: of a day, as they were known at an instant, with their history and why they moved."""

from collections.abc import Sequence
from datetime import date, datetime

import msgspec

from health.change import HealthChange, change_between
from health.measurements import Measurement
from health.score import Health, evaluate
from metering.health.cards import Cards
from metering.health.records import health_of, metrics_of
from metering.reach import Reach
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef, names_of


class Asked(msgspec.Struct, frozen=True):
    """One score: whose, for what, as of which UTC day, known at which instant (all that is known, if None)."""

    ref: SubjectRef
    purpose: str
    as_of: date
    known_at: datetime | None = None


class HistoryAsked(msgspec.Struct, frozen=True):
    """The scores of the days in [start, end)."""

    ref: SubjectRef
    purpose: str
    start: date
    end: date
    known_at: datetime | None = None


class HistoryPoint(msgspec.Struct, frozen=True):
    """A score of a day, without its reasons."""

    as_of: date
    score: float | None
    band: str
    scorecard: str
    version: int


def shows_scores(reach: Reach, account: str) -> bool:
    """Whether scores of an account and of all in it are within reach: they are made of all of its rows."""
    return reach.shows_account(account) and not reach.is_narrow


async def read_scores(snapshot: Snapshot, asked: Sequence[Asked]) -> list[Health | None]:
    """The score of each day, or of the last day before it that has one, in order. One statement."""
    found: list[Health | None] = [None] * len(asked)
    places = [place for place, each in enumerate(asked) if _can_be(snapshot.reach, each.ref, each.purpose)]
    if not places:
        return found
    chosen = [asked[place] for place in places]
    rows = await snapshot.fetch(
        sql("health.find_scores"),
        [
            *names_of([each.ref for each in chosen]),
            [each.purpose for each in chosen],
            [each.as_of for each in chosen],
            [each.known_at for each in chosen],
        ],
    )
    for row in rows:
        found[places[row["position"]]] = health_of(row)
    return found


async def read_histories(snapshot: Snapshot, asked: Sequence[HistoryAsked]) -> list[list[HistoryPoint]]:
    """The scores of the days of each period, in order. One statement."""
    found: list[list[HistoryPoint]] = [[] for _ in asked]
    places = [place for place, each in enumerate(asked) if _can_be(snapshot.reach, each.ref, each.purpose)]
    if not places:
        return found
    chosen = [asked[place] for place in places]
    rows = await snapshot.fetch(
        sql("health.list_history"),
        [
            *names_of([each.ref for each in chosen]),
            [each.purpose for each in chosen],
            [each.start for each in chosen],
            [each.end for each in chosen],
            [each.known_at for each in chosen],
        ],
    )
    for row in rows:
        cells = (row[name] for name in HistoryPoint.__struct_fields__)
        found[places[row["position"]]].append(HistoryPoint(*cells))
    return found


async def read_measured(
    snapshot: Snapshot, asked: Sequence[tuple[SubjectRef, date]]
) -> list[dict[str, Measurement] | None]:
    """What was measured of subjects on days, as it was measured last; in order. One statement."""
    found: list[dict[str, Measurement] | None] = [None] * len(asked)
    rows = await snapshot.fetch(
        sql("health.find_measured"),
        [*names_of([ref for ref, _ in asked]), [day for _, day in asked]],
    )
    for row in rows:
        found[row["position"]] = metrics_of(row["metrics"])
    return found


def change_of(
    since: date, before: Health | None, after: Health, cards: Cards, facts: dict[str, Measurement] | None
) -> HealthChange:
    """Why a score moved since a day: `before` is that day's score, and `facts` what was measured then."""
    if before is None:
        return HealthChange(since=since, difference=None, parts=())
    again = None
    if (before.scorecard, before.version) != (after.scorecard, after.version) and facts is not None:
        # What the other card alone does is told as weight, and not as the customer's doing.
        priors = {driver.path: driver.prior for driver in after.drivers}
        again = evaluate(cards.of((after.scorecard, after.version)), facts, as_of=before.as_of, priors=priors)
    return msgspec.structs.replace(change_between(before, after, at_new_version=again), since=since)


def _can_be(reach: Reach, ref: SubjectRef, purpose: str) -> bool:
    return shows_scores(reach, ref.account) and not any("\0" in text for text in (ref.account, ref.key, purpose))
