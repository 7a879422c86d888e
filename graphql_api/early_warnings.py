"""Early warnings: what was alarming of customers, how often, and from when on something is."""

from collections.abc import Mapping
from datetime import UTC, date, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
import strawberry

from graphql_api.attributes import attributes_of
from graphql_api.context import MeteringInfo
from graphql_api.health import Health, health_as_of
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, check_first, decode_cursor, encode_cursor, page_of
from graphql_api.problems import InvalidInput
from graphql_api.scalars import Instant, JsonObject
from health.alarms import AlarmType
from health.scorecards import Subject
from metering.errors import InputIssue, InvalidInputError
from metering.health import thresholds
from metering.health.early_warnings import Warned, WarningPlace, WarningsChosen, read_warnings
from metering.health.thresholds import read_thresholds
from metering.health.warning_rates import WarningRate as Rate
from metering.health.warning_rates import read_warning_rates
from metering.keys import Scope
from metering.subjects import SubjectRef

_TYPES: Final[Mapping[AlarmType, str]] = {
    AlarmType.DROP_DETECTED: "Usage is low against its own weeks before.",
    AlarmType.COMMON_CAUSE_DROP: "The median account falls: of all customers, and not of each.",
    AlarmType.USER_SILENT: "A user is silent for longer than its own cadence explains.",
    AlarmType.CHAMPION_LOST: "A champion has no access any more, or is silent.",
    AlarmType.SINGLE_THREADED: "The account hangs on one user.",
    AlarmType.SEATS_UNDERUSED: "Few of the seats are used.",
    AlarmType.RENEWAL_AT_RISK: "The renewal is near, and the score low.",
    AlarmType.BAND_CHANGED: "The band is another one than the day before.",
    AlarmType.SCORE_DROPPED: "The score is far below its highest of the last days.",
}
_type: Any = strawberry.enum(AlarmType, name="WarningType")
for _value in _type.__strawberry_definition__.values:
    _value.description = f"{_TYPES[AlarmType(_value.value)]} Told as `{_value.value}`."


@strawberry.type(
    description="Something was alarming of a subject from a day on. It goes on as long as days are no further apart than the "
    "cooldown, and is told once; what is seen by is of its first day."
)
class EarlyWarning:
    """One warning."""

    id: strawberry.ID = strawberry.field(description="Notifications of it have it as `warning`.")
    type: AlarmType
    account: str | None = strawberry.field(description="Null where it is of all customers; so are subject and key.")
    subject: Subject | None
    key: str | None
    as_of: date = strawberry.field(description="The first day at whose end it was so.")
    last_on: date = strawberry.field(description="The last one.")
    evidence: JsonObject = strawberry.field(
        description="What it was seen by, on the day on which it was raised; late usage may tell that it began earlier."
    )
    thresholds_version: int
    raised_at: Instant
    told_at: Instant | None = strawberry.field(
        description="When destinations were told; null where somebody had been lately, or it was so on the first day that "
        "anybody was scored."
    )
    withdrawn_at: Instant | None = strawberry.field(
        description="Since when the day, which was scored again, does not have it any more."
    )
    ref: strawberry.Private[SubjectRef | None]

    @strawberry.field(
        description="The score of its first day, as it was known when this was raised, with all drivers; where late usage "
        "told that it began earlier, that score may not have shown it yet."
    )
    async def health(self, info: MeteringInfo) -> Health | None:
        """See graphql_api/health.py."""
        if self.ref is None:
            return None
        return await health_as_of(self.ref, "health", self.as_of, self.raised_at, info)


EarlyWarningConnection = Connection[EarlyWarning]


@strawberry.input(description="All that are given must hold.")
class WarningFilter:
    """Which warnings are meant."""

    types: list[AlarmType] | None = strawberry.UNSET
    account: str | None = strawberry.UNSET
    since: date | None = strawberry.field(
        default=strawberry.UNSET, description="Those that were so on this day, or later."
    )
    withdrawn: bool = strawberry.field(default=False, description="Also those that are withdrawn.")


@strawberry.type(description="How often warnings of a type were raised, against the budget.")
class WarningRate:
    """One rate."""

    type: AlarmType
    subject: Subject | None = strawberry.field(description="Of which subjects; null: of all customers together.")
    count: int
    per_year: float = strawberry.field(description="For each subject and year that it was watched.")
    budget_per_year: float
    within_budget: bool


@strawberry.type(description="From when on something is alarming.")
class WarningThresholds:
    """Thresholds in force."""

    version: int = strawberry.field(description="0: those that are there from the start.")
    thresholds: JsonObject = strawberry.field(description="By name, as the documentation lists them.")
    put_at: Instant | None


@strawberry.input
class PutWarningThresholdsInput:
    """Thresholds as they are put."""

    thresholds: JsonObject = strawberry.field(
        description="By name, as `warningThresholds` shows them; those that are left out are as they are by default."
    )


PutWarningThresholdsResult = Annotated[WarningThresholds | InvalidInput, strawberry.union("PutWarningThresholdsResult")]


class _WarningPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor holds."""

    as_of: date
    id: UUID


async def resolve_warnings(
    given: WarningFilter, first: int, after: str | None, info: MeteringInfo
) -> EarlyWarningConnection:
    """Warnings, the newest first."""
    context = info.context
    check_first(first, context.limits, ("first",))
    place = decode_cursor(after, _WarningPlace, ("after",)) if after else None
    chosen = WarningsChosen(
        types=given_or_none(given.types),
        account=given_or_none(given.account),
        since=given_or_none(given.since),
        with_withdrawn=given.withdrawn,
    )
    behind = None if place is None else WarningPlace(place.as_of, place.id)
    found, has_next = await read_warnings(context.snapshot, chosen, first, behind)
    cursors = [encode_cursor(_WarningPlace(each.as_of, each.id)) for each in found]
    return page_of([_shown(each) for each in found], cursors, has_next=has_next, has_previous=place is not None)


async def warnings_of(account: str, first: int, info: MeteringInfo) -> list[EarlyWarning]:
    """The newest warnings of an account, and of all in it."""
    context = info.context
    check_first(first, context.limits, ("first",))
    return [_shown(each) for each in await context.loaders.warnings(context.snapshot, account, first)]


async def resolve_warning_rates(days: int, info: MeteringInfo) -> list[WarningRate]:
    """Rates of the last days."""
    context = info.context
    days_max = context.limits.page_rows_max
    if not 1 <= days <= days_max:
        raise InvalidInputError([InputIssue(("days",), f"This must be 1 to {days_max:,} days.")])
    today = (await context.snapshot.horizon()).as_of.astimezone(UTC).date()
    return [_rate(each) for each in await read_warning_rates(context.snapshot, today - timedelta(days=days))]


async def resolve_warning_thresholds(info: MeteringInfo) -> WarningThresholds | None:
    """Those in force; none for who is bound to accounts: how customers are judged is not for them."""
    snapshot = info.context.snapshot
    return _thresholds(await read_thresholds(snapshot)) if snapshot.reach.is_everything else None


async def resolve_put_warning_thresholds(
    given: PutWarningThresholdsInput, info: MeteringInfo
) -> PutWarningThresholdsResult:
    """Have others in force."""
    context = info.context
    key = context.require(Scope.HEALTH_WRITE)
    return _thresholds(await context.service.put_warning_thresholds(attributes_of(given.thresholds), key))


def _shown(warned: Warned) -> EarlyWarning:
    ref = warned.ref
    return EarlyWarning(
        id=strawberry.ID(str(warned.id)),
        type=warned.type,
        account=None if ref is None else ref.account,
        subject=None if ref is None else ref.subject,
        key=None if ref is None else ref.key,
        as_of=warned.as_of,
        last_on=warned.last_on,
        evidence=JsonObject(dict(warned.evidence)),
        thresholds_version=warned.thresholds_version,
        raised_at=Instant(warned.raised_at),
        told_at=None if warned.told_at is None else Instant(warned.told_at),
        withdrawn_at=None if warned.withdrawn_at is None else Instant(warned.withdrawn_at),
        ref=ref,
    )


def _rate(found: Rate) -> WarningRate:
    return WarningRate(
        type=found.rate.type,
        subject=None if found.subject == "EVERYONE" else Subject(found.subject),
        count=found.rate.count,
        per_year=found.rate.per_year,
        budget_per_year=found.budget_per_year,
        within_budget=found.rate.within_budget,
    )


def _thresholds(put: thresholds.PutThresholds) -> WarningThresholds:
    return WarningThresholds(
        version=put.version,
        thresholds=JsonObject(msgspec.to_builtins(put.thresholds)),
        put_at=None if put.put_at is None else Instant(put.put_at),
    )
