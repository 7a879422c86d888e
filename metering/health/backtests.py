"""Back-tests: what a card said of customers some time before they stayed or left, as far as it was known then.

A score is looked at some days before the outcome, or before the customer gave notice, where it did: from that day on people
talk of leaving, and what they say is no warning. Scores that are kept are read as they were known at that instant. Where a
card was not in force then, what had been measured by that instant is scored by it; or everything is measured anew, by what is
dated before the day.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec

from health.backtest import Backtest, PastOutcome, backtest
from health.measurements import Measurement
from health.score import Health, evaluate
from health.scorecards import CHURNED_BAND, Scalar, Scorecard, Subject
from metering.errors import ForbiddenError, InputIssue, InvalidInputError, TooLargeError
from metering.events import in_utc
from metering.health.choosing import STAGE
from metering.health.measuring import measure, read_norms
from metering.health.priors import Frozen, list_priors, priors_on
from metering.health.reading import Asked, HistoryAsked, read_histories, read_scores
from metering.health.records import metrics_of
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

HORIZON_DAYS_MAX: Final = 365
_CHURNED: Final = frozenset({"CHURNED", "TRIAL_LOST"})
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(days=7)
# So far before the score that is looked at, it is looked when the warning began.
_WEEKS_BEFORE: Final = 26
# A score that is older than this says nothing of a day.
_PLAN: Final = "plan"
_AGE_DAYS_MAX: Final = 28


class BacktestOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A card, and which outcomes it is held against: those of the days in [start, end), so many days before each.

    Below `warning_below` a score is a warning, from `healthy_from` on it gives none. A card that is in force has scores that
    are kept.
    """

    card: Scorecard
    is_in_force: bool
    horizon_days: int
    start: date
    end: date
    warning_below: float = 50.0
    healthy_from: float = 70.0


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome. `on` is when the customer gave notice, or when it stayed or left, if it gave none."""

    ref: SubjectRef
    churned: bool
    on: datetime
    noticed: bool


class Tried(msgspec.Struct, frozen=True):
    """What the card said of an outcome: None where nothing was known, or the card is not for the customer."""

    past: Past
    scored: PastOutcome | None
    is_for: bool = True


class BacktestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a card was worth. Subjects of `found` are the places of `past`.

    Of the outcomes, `noticed` are looked at before a notice, `unscored` had no score, and `not_for` are of customers that the
    card's condition leaves out.
    """

    order: BacktestOrder
    past: tuple[Past, ...]
    found: Backtest
    noticed: int
    unscored: int
    not_for: int


async def back_test(snapshot: Snapshot, order: BacktestOrder, limits: Limits) -> BacktestReport:
    """Try a card on what became of customers, by what is kept of them.

    Raises InvalidInputError, ForbiddenError for who does not reach everything, and TooLargeError for too many outcomes.
    """
    past = await read_past(snapshot, order, limits)
    tried = [each async for page in try_kept(snapshot, order, past, limits) for each in page]
    return await asyncio.to_thread(sum_up, order, tried)


def require_everything(snapshot: Snapshot) -> None:
    """Raise ForbiddenError for who does not reach everything."""
    if not snapshot.reach.is_everything:
        raise ForbiddenError("A back-test is of all customers; who is bound to accounts is not shown one.")


async def read_past(snapshot: Snapshot, order: BacktestOrder, limits: Limits) -> list[Past]:
    """The outcomes that a card is held against, the earliest first. Raises as back_test() does."""
    require_everything(snapshot)
    issues = list(_issues(order, limits))
    if issues:
        raise InvalidInputError(issues)
    subject, most = order.card.subject, limits.backtest_outcomes_max
    rows = await snapshot.fetch(
        sql("backtests.list_outcomes"), [subject.value, _midnight(order.start), _midnight(order.end), most + 1, None]
    )
    if len(rows) > most:
        raise TooLargeError(
            len(rows),
            most,
            message=f"These days have more than {most:,} outcomes; one back-test looks at so many. Ask for fewer days.",
        )
    return [
        Past(
            ref=SubjectRef(subject, row["account"], row["key"]),
            churned=row["kind"] in _CHURNED,
            on=in_utc(row["notice_at"] or row["at"]),
            noticed=row["notice_at"] is not None,
        )
        for row in rows
    ]


async def try_kept(
    snapshot: Snapshot, order: BacktestOrder, past: Sequence[Past], limits: Limits
) -> AsyncIterator[list[Tried]]:
    """What the card said, by scores and measurements as they were known then; page by page."""
    for start in range(0, len(past), limits.backtest_page_outcomes):
        page = past[start : start + limits.backtest_page_outcomes]
        kept = await _kept_scores(snapshot, order, page) if order.is_in_force else {}
        rest = [place for place in range(len(page)) if place not in kept]
        again = await _scored_again(snapshot, order, [page[place] for place in rest])
        found = kept | dict(zip(rest, again, strict=True))
        yield [found[place] for place in range(len(page))]


async def try_measured(
    snapshot: Snapshot, order: BacktestOrder, past: Sequence[Past], limits: Limits
) -> AsyncIterator[list[Tried]]:
    """What the card says by what is dated before each day, measured now, also what was learned later; day by day.

    Everybody's norms are computed for each day: this takes long.
    """
    priors = await list_priors(snapshot, order.card)
    by_day: dict[date, list[Past]] = {}
    for each in past:
        by_day.setdefault(_known_at(order, each).date(), []).append(each)
    for day, of_day in by_day.items():
        norms = await read_norms(snapshot, day)
        for start in range(0, len(of_day), limits.backtest_page_outcomes):
            page = of_day[start : start + limits.backtest_page_outcomes]
            measured = await measure(snapshot, [each.ref for each in page], day, norms)
            is_for = await _is_for(snapshot, order, page)
            found = []
            for each, applies in zip(page, is_for, strict=True):
                facts = {day - _DAY: measured.get(each.ref, {})}
                found.append(_evaluated(order, each, facts, priors) if applies else Tried(each, None, is_for=False))
            yield found


def sum_up(order: BacktestOrder, tried: Sequence[Tried]) -> BacktestReport:
    """What the card was worth."""
    scored = [
        msgspec.structs.replace(each.scored, subject=str(place))
        for place, each in enumerate(tried)
        if each.scored is not None
    ]
    found = backtest(scored, warning_below=order.warning_below, healthy_from=order.healthy_from)
    missing = sum(each.scored is None and each.is_for for each in tried)
    return BacktestReport(
        order=order,
        past=tuple(each.past for each in tried),
        found=found,
        noticed=sum(each.past.noticed for each in tried),
        unscored=found.unscored + missing,
        not_for=sum(not each.is_for for each in tried),
    )


def _known_at(order: BacktestOrder, past: Past) -> datetime:
    """The instant from which it is looked ahead: nothing that was learned later is used."""
    return past.on - order.horizon_days * _DAY


async def _kept_scores(snapshot: Snapshot, order: BacktestOrder, page: Sequence[Past]) -> dict[int, Tried]:
    """By place, those whom this version of the card had scored."""
    card, purpose = order.card, order.card.purpose
    instants = [_known_at(order, each) for each in page]
    scores = await read_scores(
        snapshot, [Asked(each.ref, purpose, at.date(), at) for each, at in zip(page, instants, strict=True)]
    )
    places: dict[int, Health] = {}
    for place, (health, at) in enumerate(zip(scores, instants, strict=True)):
        is_of_card = health is not None and (health.scorecard, health.version) == (card.key, card.version)
        if health is not None and is_of_card and health.band != CHURNED_BAND and _is_fresh(health.as_of, at):
            places[place] = health
    since = _WEEKS_BEFORE * _WEEK
    histories = await read_histories(
        snapshot,
        [
            HistoryAsked(page[place].ref, purpose, health.as_of - since, health.as_of, instants[place])
            for place, health in places.items()
        ],
    )
    found = {}
    for (place, health), points in zip(places.items(), histories, strict=True):
        history = tuple(
            msgspec.structs.replace(health, as_of=point.as_of, score=point.score, band=point.band)
            for point in points
            if (point.scorecard, point.version) == (card.key, card.version)
        )
        found[place] = _tried(page[place], health, history)
    return found


async def _scored_again(snapshot: Snapshot, order: BacktestOrder, page: Sequence[Past]) -> list[Tried]:
    """What had been measured by then, scored by the card."""
    if not page:
        return []
    asked = [
        (place, _known_at(order, each).date() - week * _WEEK, _known_at(order, each))
        for place, each in enumerate(page)
        for week in range(_WEEKS_BEFORE)
    ]
    rows = await snapshot.fetch(
        sql("backtests.find_facts"),
        [
            [page[place].ref.account for place, _, _ in asked],
            order.card.subject.value,
            [page[place].ref.key for place, _, _ in asked],
            [day for _, day, _ in asked],
            [at for _, _, at in asked],
        ],
    )
    is_for = await _is_for(snapshot, order, page)
    priors = await list_priors(snapshot, order.card)

    def evaluated() -> list[Tried]:
        facts: list[dict[date, Mapping[str, Measurement]]] = [{} for _ in page]
        for row in rows:
            of_subject = facts[asked[row["position"]][0]]
            if row["as_of"] not in of_subject:
                of_subject[row["as_of"]] = metrics_of(row["metrics"])
        return [
            _evaluated(order, each, found, priors) if applies else Tried(each, None, is_for=False)
            for each, found, applies in zip(page, facts, is_for, strict=True)
        ]

    return await asyncio.to_thread(evaluated)


def _evaluated(
    order: BacktestOrder, past: Past, facts: Mapping[date, Mapping[str, Measurement]], priors: Sequence[Frozen]
) -> Tried:
    """The score of the last of these days, with those of the others."""
    if not facts or not _is_fresh(max(facts), _known_at(order, past)):
        return Tried(past, None)
    *before, last = (
        evaluate(order.card, facts[day], as_of=day, priors=priors_on(priors, day)) for day in sorted(facts)
    )
    return _tried(past, last, tuple(before))


def _tried(past: Past, scored: Health, history: tuple[Health, ...]) -> Tried:
    on = past.on.date()
    return Tried(past, PastOutcome(subject=past.ref.key, churned=past.churned, on=on, scored=scored, history=history))


def _is_fresh(as_of: date, at: datetime) -> bool:
    return (at.date() - as_of).days < _AGE_DAYS_MAX


async def _is_for(snapshot: Snapshot, order: BacktestOrder, page: Sequence[Past]) -> list[bool]:
    """Whom the card's condition on attributes is for, by what was known of them. Stages move with each renewal, and plans are
    those of the contracts as they are now: conditions on these are left aside.
    """
    when = {name: condition for name, condition in order.card.when.items() if name not in {STAGE, _PLAN}}
    if not when:
        return [True] * len(page)
    rows = await snapshot.fetch(
        sql("backtests.find_attributes"),
        [
            [each.ref.account for each in page],
            order.card.subject.value,
            [each.ref.key for each in page],
            [_known_at(order, each) for each in page],
        ],
    )
    said: list[dict[str, Scalar]] = [{} for _ in page]
    for row in rows:
        value: Any = msgspec.json.decode(row["value"])
        if isinstance(value, str | int | float | bool):
            said[row["position"]][row["name"]] = value
    card = msgspec.structs.replace(order.card, when=when)
    return [card.applies_to(attributes) for attributes in said]


def _issues(order: BacktestOrder, limits: Limits) -> list[InputIssue]:
    issues = []
    if order.card.subject is Subject.USER:
        message = "This card is for users, of whom there are no outcomes; take one of accounts or subscriptions."
        issues.append(InputIssue(("scorecard",), message))
    if not 1 <= order.horizon_days <= HORIZON_DAYS_MAX:
        message = f"This must be 1 to {HORIZON_DAYS_MAX}; this is {order.horizon_days:,}."
        issues.append(InputIssue(("horizonDays",), message))
    first, last = limits.asked_from_min.date() + HORIZON_DAYS_MAX * _DAY, limits.asked_to_max.date()
    if not first <= order.start < order.end <= last:
        message = f"`to` must be later than `from`, both of {first} to {last}."
        issues.append(InputIssue(("to",), message))
    elif (order.end - order.start).days > limits.backtest_days_max:
        issues.append(InputIssue(("to",), f"A back-test is of {limits.backtest_days_max:,} days at most."))
    for name, bound in (("warningBelow", order.warning_below), ("healthyFrom", order.healthy_from)):
        if not 0 <= bound <= 100:  # noqa: PLR2004 - where scores are
            issues.append(InputIssue((name,), f"Scores are 0 to 100; this is {bound:g}."))
    if order.warning_below > order.healthy_from:
        issues.append(InputIssue(("healthyFrom",), "This is below `warningBelow`: a score would be both."))
    return issues


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
