"""What is alarming on a day that is over: the alarms of health/ over what was measured and scored of each subject.

Of accounts all types; of subscriptions drops, bands and scores, where their account has several that run; of users silence.
Who has no score, or has left, is not looked at any more, but for the last change of band.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import msgspec

from health.alarms import Alarm, AlarmType, Thresholds
from health.drops import dropped, dropped_together, is_common
from health.measurements import Measurement, Observed
from health.people import UserActivity, seats_underused, single_threaded, user_silent
from health.score import Health
from health.score_alarms import band_changed, renewal_at_risk, score_dropped
from health.scorecards import CHURNED_BAND, UNKNOWN_BAND, Subject
from metering.health.norms import Norms
from metering.health.reading import Asked, HistoryAsked, read_histories, read_scores
from metering.health.scoring import DayScores
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

PURPOSE: Final = "health"
_EVERYONE: Final = "everyone"
_NOTHING: Final[Mapping[str, Measurement]] = {}


class Place(NamedTuple):
    """What an alarm is of: its type, whom (None: everybody), and what tells it from others of these."""

    type: AlarmType
    ref: SubjectRef | None
    about: str = ""


class Alarming(msgspec.Struct, frozen=True):
    """What is alarming of some accounts on a day, with their scores, and how many subjects of each kind were looked at."""

    as_of: date
    accounts: Sequence[str]
    found: Mapping[Place, Alarm]
    scores: Mapping[SubjectRef, Health]
    watched: Mapping[Subject, int]


async def find_alarms(
    snapshot: Snapshot, day: DayScores, accounts: Sequence[str], norms: Norms | None, thresholds: Thresholds
) -> Alarming:
    """What is alarming of these accounts and of all in them. Two statements."""
    looking = _Looking(day, norms, thresholds)
    highest = await _highest(snapshot, looking, thresholds)
    # A moment of calculation for each subject: others are served meanwhile.
    found = await asyncio.to_thread(_found, looking, highest)
    there = [ref.subject for ref, health in looking.scores.items() if health.band != CHURNED_BAND]
    return Alarming(day.as_of, accounts, found, looking.scores, {kind: there.count(kind) for kind in Subject})


def _found(looking: "_Looking", highest: Mapping[SubjectRef, Health]) -> dict[Place, Alarm]:
    found = dict(looking.of_everybody())
    for ref, health in looking.scores.items():
        history = [highest[ref]] if ref in highest else []
        found.update((_place(ref, alarm), alarm) for alarm in looking.of(ref, health, history) if alarm is not None)
    return found


async def _highest(snapshot: Snapshot, looking: "_Looking", thresholds: Thresholds) -> dict[SubjectRef, Health]:
    """The highest score of the last days, where it is so much higher than the one of the day."""
    end = looking.as_of
    start = end - timedelta(days=thresholds.score_drop_days)
    refs = [
        ref for ref, health in looking.scores.items() if ref.subject is not Subject.USER and health.score is not None
    ]
    points = await read_histories(snapshot, [HistoryAsked(ref, PURPOSE, start, end) for ref in refs])
    asked = []
    for ref, of_ref in zip(refs, points, strict=True):
        known = [(each.score, each.as_of) for each in of_ref if each.score is not None]
        score = looking.scores[ref].score
        if known and score is not None and max(known)[0] - score >= thresholds.score_drop_min:
            asked.append(Asked(ref, PURPOSE, max(known)[1]))
    found = await read_scores(snapshot, asked)
    return {each.ref: health for each, health in zip(asked, found, strict=True) if health is not None}


def _place(ref: SubjectRef, alarm: Alarm) -> Place:
    about = {AlarmType.BAND_CHANGED: "after", AlarmType.CHAMPION_LOST: "user"}.get(alarm.type)
    return Place(alarm.type, ref, str(alarm.evidence[about]) if about else "")


class _Looking:
    """Looks at subjects of a day."""

    def __init__(self, day: DayScores, norms: Norms | None, thresholds: Thresholds) -> None:
        self.as_of = day.as_of
        self._day = day
        self._norms = norms
        self._thresholds = thresholds
        self._holds_back = norms is not None and is_common(norms.change, norms.fast_change, thresholds)
        # Subscriptions that are all their account has are told of as the account.
        self.scores: Mapping[SubjectRef, Health] = {
            each.ref: each.health
            for each in day.scored
            if each.purpose == PURPOSE
            and (
                each.ref.subject is not Subject.SUBSCRIPTION
                # One that ends on this day ran beside the others until then.
                or day.running.get(each.ref.account, 0) + (each.health.band == CHURNED_BAND) > 1
            )
        }
        self._active_days: dict[str, dict[str, int]] = {}
        # Also of whom no card is for: they carry the account all the same.
        for ref in day.measured:
            active = self._value(ref, "active_days")
            if ref.subject is Subject.USER and active is not None:
                self._active_days.setdefault(ref.account, {})[ref.key] = int(active)

    def of_everybody(self) -> Iterator[tuple[Place, Alarm]]:
        """What all customers do together."""
        if self._norms is not None:
            alarm = dropped_together(
                _EVERYONE, self._norms.change, self._norms.fast_change, as_of=self.as_of, thresholds=self._thresholds
            )
            if alarm is not None:
                yield Place(alarm.type, None), alarm

    def of(self, ref: SubjectRef, health: Health, history: Sequence[Health]) -> Iterator[Alarm | None]:
        """What is alarming of one subject; `history` are earlier scores that a fall may be seen by."""
        if ref.subject is Subject.USER:
            if health.band != CHURNED_BAND:
                yield self._silent(ref)
            return
        before = self._day.previous.get(ref, {}).get(PURPOSE)
        # Becoming known, or unknown, says something of us and not of the customer.
        if before is not None and UNKNOWN_BAND not in {before.band, health.band}:
            yield band_changed(ref.key, before, health)
        if health.band == CHURNED_BAND:
            return
        yield score_dropped(ref.key, history, health, self._thresholds)
        if not self._holds_back:
            four_weeks, one_week = self._value(ref, "drop_z"), self._value(ref, "drop_z_week")
            yield dropped(ref.key, four_weeks, one_week, as_of=self.as_of, thresholds=self._thresholds)
        if ref.subject is Subject.ACCOUNT:
            yield from self._of_account(ref, health)

    def _of_account(self, ref: SubjectRef, health: Health) -> Iterator[Alarm | None]:
        seats, active = self._value(ref, "seats"), self._value(ref, "active_users")
        yield from self._champions(ref)
        yield single_threaded(
            ref.account,
            self._active_days.get(ref.account, {}),
            seats,
            as_of=self.as_of,
            thresholds=self._thresholds,
        )
        yield seats_underused(
            ref.account,
            seats=seats,
            active_users=None if active is None else int(active),
            age_days=self._value(ref, "age_days") or 0.0,
            as_of=self.as_of,
            thresholds=self._thresholds,
        )
        renewal_days = self._value(ref, "renewal_days")
        yield renewal_at_risk(ref.account, health, renewal_days, as_of=self.as_of, thresholds=self._thresholds)

    def _champions(self, ref: SubjectRef) -> Iterator[Alarm]:
        """Who is lost was measured already, by the same thresholds."""
        lost = self._day.measured.get(ref, _NOTHING).get("champion_lost")
        for user in (lost.users if isinstance(lost, Observed) else None) or ():
            silence = self._value(SubjectRef(Subject.USER, ref.account, user), "silence")
            evidence: dict[str, float | str] = {"user": user, "why": "without access"}
            if silence is not None:
                evidence |= {"why": "silent", "silence": silence}
            yield Alarm(type=AlarmType.CHAMPION_LOST, subject=ref.account, as_of=self.as_of, evidence=evidence)

    def _silent(self, ref: SubjectRef) -> Alarm | None:
        """Who is not expected any more has no silence."""
        user = UserActivity(user=ref.key, active_days=0, tenure_days=0, features=0, silence=self._value(ref, "silence"))
        return user_silent(user, as_of=self.as_of, thresholds=self._thresholds)

    def _value(self, ref: SubjectRef, metric: str) -> float | None:
        found = self._day.measured.get(ref, _NOTHING).get(metric)
        return found.value if isinstance(found, Observed) else None
