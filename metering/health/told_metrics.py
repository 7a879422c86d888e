"""What contracts and signals say of a subject, as metrics. What names of signals mean, docs/health.md lists for users."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec

from health.measurements import Measurement, NotApplicable, Observed, Unknown
from health.scorecards import Subject
from metering.health.conventions import DEPROVISIONED
from metering.health.gathering import NO_CONTRACT, Gathered
from metering.health.norms import Norms
from metering.health.usage_metrics import Metrics
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

# Everybody answers these; the newest answer of each counts, for so many days.
_SURVEYS: Final = ("nps", "csat", "ces")
_SURVEY_DAYS: Final = 180
# One for each new ticket.
TICKET: Final = "ticket"
_SEVERE: Final = "tickets_severe_open"
_OVERDUE: Final = "invoice_overdue_days"
_PULSE: Final = "pulse"
_TOUCH: Final = "touch"
NAMES: Final = (*_SURVEYS, TICKET, _SEVERE, _OVERDUE, _PULSE, _TOUCH)

_PULSE_DAYS: Final = timedelta(days=90)
# A word that is extreme is about a moment.
_EXTREME_DAYS: Final = timedelta(days=30)
_EXTREMES: Final = (1.0, 5.0)
_PROMOTER_MIN: Final = 9.0
_DETRACTOR_MAX: Final = 6.0
_SATISFIED_MIN: Final = 4.0


class Signal(msgspec.Struct, frozen=True):
    """The newest signal of a name, and how many of it there were in 28 days."""

    value: float
    at: datetime
    expires_at: datetime | None
    lately: int


class Told(msgspec.Struct, frozen=True):
    """Signals by account, with whose they are."""

    of: Mapping[str, Sequence[tuple[SubjectRef, str, Signal]]]

    def signals(self, ref: SubjectRef, name: str, *, with_parts: bool) -> list[tuple[SubjectRef, Signal]]:
        """The signals of a subject; with parts, of an account also those of its subscriptions and users."""
        is_whole = with_parts and ref.subject is Subject.ACCOUNT
        return [
            (whose, signal)
            for whose, told, signal in self.of.get(ref.account, ())
            if told == name and (is_whole or whose == ref)
        ]


async def read_told(snapshot: Snapshot, accounts: Sequence[str] | None, as_of: date) -> Told:
    """The signals that metrics read, of these accounts (None: of all), from before a UTC day."""
    rows = await snapshot.fetch(sql("measures.list_signals"), [accounts, as_of, NAMES, _SURVEYS])
    of: dict[str, list[tuple[SubjectRef, str, Signal]]] = {}
    for row in rows:
        ref = SubjectRef(Subject(row["subject"]), row["account"], row["key"])
        expires_at = None if row["expires_at"] is None else row["expires_at"].astimezone(UTC)
        signal = Signal(row["value"], row["at"].astimezone(UTC), expires_at, row["lately"])
        of.setdefault(row["account"], []).append((ref, row["name"], signal))
    return Told(of)


def contract_metrics(gathered: Gathered, ref: SubjectRef) -> Metrics:
    """What is sold to an account or a subscription."""
    running, seats = gathered.running(ref), gathered.seats(ref)
    yield "seats", Observed(float(seats)) if seats is not None else NotApplicable("no seats are sold")
    yield (
        "renewal_days",
        _until(gathered.as_of, [each.renews_on for each in running], running, Unknown("no renewal date")),
    )
    trials = [each.trial_ends_on for each in running if each.trial_ends_on is not None]
    ahead = [day for day in trials if day >= gathered.as_of]
    yield "trial_days_left", _until(gathered.as_of, ahead, running, NotApplicable("no trial is running"))
    yield "monthly_amount", gathered.monthly_amount(ref)


def signal_metrics(gathered: Gathered, norms: Norms, told: Told, ref: SubjectRef) -> Metrics:
    """What somebody told us of a subject."""
    touches = told.signals(ref, _TOUCH, with_parts=True)
    last = max((signal.at for _, signal in touches), default=None)
    days = None if last is None else float((gathered.as_of - last.date()).days)
    yield "touch_days", Unknown("no contact was told") if days is None else Observed(days)
    if ref.subject is Subject.USER:
        return
    for name in _SURVEYS:
        yield name, _survey(name, list(_answers(gathered, told, ref, name)))
    tickets = sum(signal.lately for _, signal in told.signals(ref, TICKET, with_parts=True))
    counted: Measurement = (
        Observed(float(tickets)) if TICKET in norms.told else Unknown("no tickets are told of anybody")
    )
    yield "tickets_28d", counted
    seats = gathered.seats(ref)
    if not seats:
        yield "tickets_28d_per_seat", NotApplicable("no seats are sold")
    else:
        yield "tickets_28d_per_seat", Observed(tickets / seats) if isinstance(counted, Observed) else counted
    for name in (_SEVERE, _OVERDUE, _PULSE):
        yield name, _newest(name, told.signals(ref, name, with_parts=False))


def _until(as_of: date, days: Iterable[date | None], running: Sequence[Any], missing: Measurement) -> Measurement:
    """How many days it is to the first of these days; below zero where it is past."""
    if not running:
        return NO_CONTRACT
    first = min((day for day in days if day is not None), default=None)
    return missing if first is None else Observed(float((first - as_of).days))


def _answers(gathered: Gathered, told: Told, ref: SubjectRef, name: str) -> Iterator[Signal]:
    """Answers to a survey that are not too old, but for those of users who have left."""
    since = gathered.as_of - timedelta(days=_SURVEY_DAYS)
    for whose, signal in told.signals(ref, name, with_parts=True):
        left = whose.subject is Subject.USER and gathered.conventions.flag(whose, DEPROVISIONED)
        if signal.at.date() >= since and not left:
            yield signal


def _survey(name: str, answers: Sequence[Signal]) -> Measurement:
    if not answers:
        return Unknown("nobody answered in 180 days")
    values = [answer.value for answer in answers]
    count = len(values)
    match name:
        case "nps":
            promoters = sum(value >= _PROMOTER_MIN for value in values)
            value = 100.0 * (promoters - sum(value <= _DETRACTOR_MAX for value in values)) / count
        case "csat":
            value = 100.0 * sum(value >= _SATISFIED_MIN for value in values) / count
        case _:
            value = sum(values) / count
    return Observed(value, observed_at=max(answer.at for answer in answers), respondents=count)


def _newest(name: str, signals: Sequence[tuple[SubjectRef, Signal]]) -> Measurement:
    if not signals:
        return Unknown()
    ((_, signal),) = signals
    expires_at = signal.expires_at
    if name == _PULSE and expires_at is None:
        expires_at = signal.at + (_EXTREME_DAYS if signal.value in _EXTREMES else _PULSE_DAYS)
    return Observed(signal.value, observed_at=signal.at, expires_at=expires_at)
