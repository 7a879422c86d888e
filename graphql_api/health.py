"""Health: a subject's score with its reasons, why it moved, and its history."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.auth import requires
from graphql_api.context import Context, MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.scalars import Instant
from health import change
from health import score as scores
from health.change import HealthChangeCause
from health.score import DriverState
from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.health.disclosure import disclosed, disclosed_change
from metering.health.reading import Asked, HistoryAsked, change_of
from metering.keys import Scope
from metering.subjects import SubjectRef

_STATES: Final[Mapping[DriverState, str]] = {
    DriverState.OBSERVED: "There is a value, and it counts in full.",
    DriverState.UNKNOWN: "There may be a value; nobody told us. It moves nothing, and lowers the coverage.",
    DriverState.STALE: "The value is old: it counts less, down to nothing.",
    DriverState.NOT_APPLICABLE: "There can be no value; the others take its weight.",
}
_CAUSES: Final[Mapping[HealthChangeCause, str]] = {
    HealthChangeCause.VALUE: "The value moved, or became known.",
    HealthChangeCause.AGED: "It counts more or less by its age, or is not known any more.",
    HealthChangeCause.WEIGHT: "Its share moved, by what applies or by the card's version.",
    HealthChangeCause.BASELINE: "What is usual moved.",
    HealthChangeCause.ADJUSTMENT: "Caps and overrides.",
}
_SUBJECTS: Final[Mapping[Subject, str]] = {
    Subject.ACCOUNT: "A customer.",
    Subject.SUBSCRIPTION: "One of its contracts.",
    Subject.USER: "One of its people.",
}
for _kind, _name, _texts in (
    (DriverState, "DriverState", _STATES),
    (HealthChangeCause, "HealthChangeCause", _CAUSES),
    (Subject, "HealthSubject", _SUBJECTS),
):
    _enum: Any = strawberry.enum(_kind, name=_name)
    for _value in _enum.__strawberry_definition__.values:
        _value.description = _texts[_kind(_value.value)]  # type: ignore[index]


@strawberry.type(
    description="What one measure does to the score; what is not for whoever asks is one driver, `undisclosed`."
)
class Driver:
    """One measure, or the adjustment."""

    metric: str
    path: list[str] = strawberry.field(description="The groups of the card that lead to it, and the metric.")
    state: DriverState
    value: float | None
    score: float | None = strawberry.field(description="What the value comes to by the card's curve, 0 to 100.")
    weight: float = strawberry.field(description="Its share of all that applies, 0 to 1.")
    contribution: float = strawberry.field(description="What it moves the score by, against the baseline.")
    observed_at: Instant | None = strawberry.field(description="Null where it was computed for the day itself.")
    reason: str | None


@strawberry.type(description="What one cause did through one measure; before and after are of what the cause names.")
class HealthChangePart:
    """One part of a change."""

    metric: str
    cause: HealthChangeCause
    contribution: float
    before: float | None
    after: float | None


@strawberry.type(description="The parts add up to the difference. Without a score on both days there is neither.")
class HealthChange:
    """Why a score moved."""

    since: date
    difference: float | None
    parts: list[HealthChangePart]


@strawberry.type
class HealthPoint:
    """A score of a day."""

    as_of: date
    score: float | None
    band: str
    scorecard_version: int


@strawberry.type(description="score = baseline + the drivers' contributions + adjustment, exactly; 100 is healthy.")
class Health:
    """One score."""

    scorecard: str
    scorecard_version: int
    as_of: date = strawberry.field(description="The UTC day at whose end things were so; today is not over yet.")
    score: float | None = strawberry.field(description="Null when too little is known (see `coverage`).")
    band: str
    coverage: float = strawberry.field(description="Share of the weight that is known and fresh, 0 to 1.")
    baseline: float
    shown: strawberry.Private[scores.Health]
    asked: strawberry.Private[Asked]
    context: strawberry.Private[Context]

    @strawberry.field(description="What moves the score most comes first; all of them, or the `first` ones.")
    def drivers(self, first: int | None = strawberry.UNSET) -> list[Driver]:
        """By what they contribute."""
        count = given_or_none(first)
        if count is not None and count < 0:
            raise InvalidInputError([InputIssue(("first",), "This is below zero; leave it out for all drivers.")])
        ordered = sorted(self.shown.drivers, key=lambda each: -abs(each.contribution))
        return [_driver(each) for each in ordered[:count]]

    @strawberry.field(description="What caps and overrides did, and why.")
    def adjustment(self) -> Driver | None:
        """As a driver without a weight."""
        found = self.shown.adjustment
        return None if found is None else _adjustment(found)

    @strawberry.field(description="Why the score is another one than as of a day before.")
    async def change(self, since: date) -> HealthChange:
        """In parts."""
        asked = msgspec.structs.replace(self.asked, as_of=since)
        return await _change(asked, self.asked, self.context)

    @strawberry.field(description="The scores of the days from `from` on and before `to`, as they were known then.")
    async def history(
        self,
        from_: Annotated[date, strawberry.argument(name="from")],
        to: date,
    ) -> list[HealthPoint]:
        """Day by day, where there is a score."""
        days_max = self.context.limits.page_rows_max
        if not 0 < (to - from_).days <= days_max:
            message = f"`to` must be later than `from`, by {days_max:,} days at most."
            raise InvalidInputError([InputIssue(("to",), message)])
        asked = HistoryAsked(self.asked.ref, self.asked.purpose, from_, to, self.asked.known_at)
        return [
            HealthPoint(as_of=each.as_of, score=each.score, band=each.band, scorecard_version=each.version)
            for each in await self.context.loaders.history(self.context.snapshot, asked)
        ]


def health_field(
    ref_of: Callable[[Any], SubjectRef],
    description: str = "Its score as of a UTC day, today unless given, or of the last day before it that has one.",
) -> Any:
    """The field `health` of a type of subjects."""

    async def health(
        root: Any,
        info: MeteringInfo,
        purpose: str = "health",
        as_of: date | None = strawberry.UNSET,
        known_at: Annotated[
            Instant | None, strawberry.argument(description="As it was known then.")
        ] = strawberry.UNSET,
    ) -> Health | None:
        return await health_as_of(ref_of(root), purpose, given_or_none(as_of), given_or_none(known_at), info)

    return strawberry.field(resolver=health, description=description, **requires(Scope.HEALTH_READ))


async def health_as_of(
    ref: SubjectRef, purpose: str, as_of: date | None, known_at: datetime | None, info: MeteringInfo
) -> Health | None:
    """The score of a subject; None where there is none, or it is beyond the caller's reach."""
    context = info.context
    day = as_of or (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    asked = Asked(ref, purpose, day, known_at)
    found = await context.loaders.score(context.snapshot, asked)
    if found is None:
        return None
    shown = found
    if not context.snapshot.reach.is_everything:
        cards = await context.loaders.cards(context.snapshot)
        shown = disclosed(found, cards.of((found.scorecard, found.version)))
    return Health(
        scorecard=shown.scorecard,
        scorecard_version=shown.version,
        as_of=shown.as_of,
        score=shown.score,
        band=shown.band,
        coverage=shown.coverage,
        baseline=shown.baseline,
        shown=shown,
        asked=asked,
        context=context,
    )


async def _change(before_asked: Asked, after_asked: Asked, context: Context) -> HealthChange:
    snapshot, loaders = context.snapshot, context.loaders
    before = await loaders.score(snapshot, before_asked)
    after = await loaders.score(snapshot, after_asked)
    assert after is not None, "whose change is asked for"
    cards = await loaders.cards(snapshot)
    facts = None
    if before is not None and (before.scorecard, before.version) != (after.scorecard, after.version):
        facts = await loaders.measured(snapshot, before_asked.ref, before.as_of)
    found = change_of(before_asked.as_of, before, after, cards, facts)
    if not snapshot.reach.is_everything:
        named = [each for each in (before, after) if each is not None]
        found = disclosed_change(found, [cards.of((each.scorecard, each.version)) for each in named])
    return HealthChange(
        since=found.since, difference=found.difference, parts=[_change_part(part) for part in found.parts]
    )


def _change_part(part: change.HealthChangePart) -> HealthChangePart:
    return HealthChangePart(
        metric=part.metric, cause=part.cause, contribution=part.contribution, before=part.before, after=part.after
    )


def _driver(driver: scores.Driver) -> Driver:
    return Driver(
        metric=driver.metric,
        path=list(driver.path),
        state=driver.state,
        value=driver.value,
        score=driver.score,
        weight=driver.weight,
        contribution=driver.contribution,
        observed_at=None if driver.observed_at is None else Instant(driver.observed_at),
        reason=driver.reason,
    )


def _adjustment(adjustment: scores.Adjustment) -> Driver:
    return Driver(
        metric="adjustment",
        path=[],
        state=DriverState.OBSERVED,
        value=None,
        score=None,
        weight=0.0,
        contribution=adjustment.contribution,
        observed_at=None,
        reason=adjustment.reason,
    )
