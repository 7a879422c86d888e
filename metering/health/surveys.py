"""Who to survey: users who used something lately, and were not asked for a while, in an order that is drawn by lot."""

from collections.abc import Sequence
from datetime import date, timedelta
from enum import Enum
from typing import Final

import msgspec

from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.health.conventions import DEPROVISIONED, ROLE, SERVICE_ACCOUNT, columns_of, read_conventions
from metering.health.features import check_day
from metering.health.gathering import ask
from metering.health.known import midnight_after
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot
from metering.subjects import SubjectRef

ASKED_DAYS_MAX: Final = 3_660


class Lifecycle(Enum):
    """What a user's activity of 28 days comes after."""

    NEW = "NEW"
    RETAINED = "RETAINED"
    RESURRECTED = "RESURRECTED"


class SurveyAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a survey is for. Product, feature and lifecycle of None are any."""

    as_of: date
    product: str | None = None
    feature: str | None = None
    lifecycle: Lifecycle | None = None
    # Signals of these names, in so many days before the day or after it, say that somebody was asked.
    asked_by: Sequence[str]
    not_asked_days: int
    # Other texts draw other lots; the same text draws the same ones.
    draw: str


class CandidatePlace(msgspec.Struct, frozen=True):
    """Where a candidate stands."""

    lot: str
    account: str
    user: str


class Candidate(msgspec.Struct, frozen=True):
    """A user who may be asked: on how many of the 28 days it was used, and when last."""

    place: CandidatePlace
    role: str | None
    lifecycle: Lifecycle
    days: int
    last_on: date


class CandidatePage(msgspec.Struct, frozen=True):
    """A page, and how many there are in all."""

    candidates: tuple[Candidate, ...]
    total: int
    has_next: bool


async def list_candidates(
    snapshot: Snapshot, asked: SurveyAsked, first: int, after: CandidatePlace | None, limits: Limits
) -> CandidatePage:
    """The first candidates by lot, from behind one on. Raises InvalidInputError with every fault."""
    _check(asked, limits)
    question = await ask(snapshot, None, asked.as_of)
    conventions = await read_conventions(snapshot, question.accounts, asked.as_of)
    left_out = columns_of([*conventions.users(SERVICE_ACCOUNT), *conventions.users(DEPROVISIONED)])
    since = midnight_after(asked.as_of - timedelta(days=asked.not_asked_days + 1))
    rows = await question.of_lookback(
        sql("surveys.list_candidates"),
        *left_out,
        *(asked.product, asked.feature, asked.asked_by, since),
        None if asked.lifecycle is None else asked.lifecycle.value,
        asked.draw,
        *((None, None, None) if after is None else (after.lot, after.account, after.user)),
        first + 1,
    )
    found = []
    for row in rows:
        if row["key"] is not None:
            role = conventions.of.get(SubjectRef(Subject.USER, row["account"], row["key"]), {}).get(ROLE)
            place = CandidatePlace(row["lot"], row["account"], row["key"])
            shown_role = role if isinstance(role, str) else None
            found.append(Candidate(place, shown_role, Lifecycle(row["lifecycle"]), row["days"], row["last_on"]))
    return CandidatePage(tuple(found[:first]), rows[0]["candidates"], has_next=len(found) > first)


def _check(asked: SurveyAsked, limits: Limits) -> None:
    check_day(asked.as_of, limits)
    issues = []
    if not 0 <= asked.not_asked_days <= ASKED_DAYS_MAX:
        issues.append(InputIssue(("notAskedDays",), f"This must be 0 to {ASKED_DAYS_MAX:,} days."))
    if len(asked.asked_by) > limits.filter_values_max:
        issues.append(
            InputIssue(("askedBy",), f"{len(asked.asked_by):,} names; {limits.filter_values_max:,} are taken.")
        )
    texts = {"product": asked.product, "feature": asked.feature, "draw": asked.draw, "askedBy": "".join(asked.asked_by)}
    issues += [
        InputIssue((name,), "A NUL character, which no text can keep.")
        for name, text in texts.items()
        if text is not None and "\0" in text
    ]
    if issues:
        raise InvalidInputError(issues)
