"""Interventions: who is to be left alone, what was done for whom, and whether it worked."""

from datetime import date
from typing import Annotated, Any, Final

import msgspec
import strawberry

from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.pages import Connection, CursorText, check_first, decode_cursor, encode_cursor, page_by_key, page_of
from graphql_api.problems import Conflict, InvalidInput
from graphql_api.scalars import Instant
from health import effects, needs
from health.scorecards import Subject
from metering.health import interventions
from metering.health.intervention_effects import Method, read_effect, read_reached
from metering.health.interventions import (
    Audience,
    HoldOutOrder,
    InterventionOrder,
    Named,
    find_intervention,
    hold_out,
    read_audience,
    read_interventions,
)
from metering.keys import Scope

_METHODS: Final = {
    Method.HOLD_OUT: "Those treated with those held out by lot: the difference of how far the metric moved (Welch).",
    Method.COMPARED: "Those treated with all others in the same range, given the path that both had before (ANCOVA).",
}
_method: Any = strawberry.enum(Method, name="InterventionMethod")
for _value in _method.__strawberry_definition__.values:
    _value.description = _METHODS[Method(_value.value)]


@strawberry.input(description="A subject by its key.")
class InterventionSubjectInput:
    """One of an audience."""

    key: str
    account: str | None = strawberry.field(
        default=strawberry.UNSET, description="Whose it is: needed of a user, and of a subscription that was never put."
    )


@strawberry.input(description="A condition on a metric as it was on the last day before; both bounds are inside.")
class InterventionNeedInput:
    """Who needs it."""

    metric: str
    at_least: float | None = strawberry.UNSET
    at_most: float | None = strawberry.UNSET


@strawberry.input(
    description="What was done for customers, with all whom it was meant for, those held out too. Everybody who is not held out "
    "counts as treated: who decides afterwards who was, finds what he looks for."
)
class RecordInterventionInput:
    """An intervention as it is told."""

    key: str
    kind: str = strawberry.field(description="What was done: a training on site, a call, a video, or anything else.")
    subject: Subject = Subject.ACCOUNT
    keys: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Whom it was meant for, by key.")
    subjects: list[InterventionSubjectInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The same, with accounts; both lists together are the audience."
    )
    started_on: date = strawberry.field(description="Its first UTC day; not in the future.")
    ended_on: date | None = strawberry.field(
        default=strawberry.UNSET,
        description="Its last day; left out while it goes on, and said once by recording it again.",
    )
    metric: str = strawberry.field(
        description="What it is to move: a metric that scorecards may use, or `score`, of the purpose `health`."
    )
    window_days: int = strawberry.field(
        default=28,
        description="So many days after its last day the metric is looked at; after the first while it goes on.",
    )
    holdout_percent: float = strawberry.field(
        default=0.0, description="Which share of the audience was left alone by lot, as `holdOut` said before."
    )
    segment_by: str | None = strawberry.field(
        default=strawberry.UNSET, description="An attribute that those treated and the others are compared within."
    )
    need: InterventionNeedInput | None = strawberry.field(
        default=strawberry.UNSET, description="Who needed it; then it is told whether these were reached."
    )
    note: str | None = strawberry.UNSET


@strawberry.input(
    description="What is about to be done, and whom for: it is recorded with the same key, percent and subjects."
)
class HoldOutInput:
    """Who is to be left alone."""

    intervention: str = strawberry.field(description="The key that it will be recorded by.")
    percent: float
    subject: Subject = Subject.ACCOUNT
    keys: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Whom it is meant for, by key.")
    subjects: list[InterventionSubjectInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The same, with accounts; both lists together are the audience."
    )


@strawberry.type
class InterventionNeed:
    """Who needed it."""

    metric: str
    at_least: float | None
    at_most: float | None


@strawberry.type(description="What was done for customers; what is recorded stays.")
class Intervention:
    """One intervention."""

    key: str
    kind: str
    subject: Subject
    started_on: date
    ended_on: date | None = strawberry.field(description="Null while it goes on.")
    metric: str
    window_days: int
    holdout_percent: float
    segment_by: str | None
    need: InterventionNeed | None
    note: str | None
    treated: int
    held_out: int
    recorded_at: Instant
    recorded_by: str


@strawberry.type(description="A value, and where the true one is with 95 % confidence.")
class EffectEstimate:
    """An estimate."""

    value: float
    low: float
    high: float


@strawberry.type(
    description="What an intervention did to its metric: the effect on those treated, and what speaks against it."
)
class InterventionEffect:
    """Did it work."""

    method: Method
    before_on: date = strawberry.field(description="The last day before; values are those at the end of UTC days.")
    measured_on: date = strawberry.field(description="The last day of the window.")
    treated: int = strawberry.field(description="Of those treated, how many are compared.")
    controls: int = strawberry.field(description="With how many they are compared.")
    left_out: int = strawberry.field(description="Those whom nobody of the other side resembles.")
    unmeasured: int = strawberry.field(
        description="Those of the audience of whom the metric is not known on one of the days that are needed."
    )
    effect: EffectEstimate | None
    placebo: EffectEstimate | None = strawberry.field(
        description="The same for weeks before it, on which it can have had no effect; of a hold-out there is none."
    )
    naive: float | None = strawberry.field(
        description="After less before of those treated: what it seems to be where nobody is compared."
    )
    not_enough: list[str] = strawberry.field(
        description="Why the effect must not be relied on; empty where nothing speaks against it."
    )


@strawberry.type(description="Whether the right ones were reached, by what was measured on the last day before.")
class InterventionReached:
    """Right people reached."""

    treated_known: int = strawberry.field(description="Those treated of whom the need is known.")
    treated_in_need: int
    in_need: int = strawberry.field(description="All that had the need, but for those held out.")
    share_in_need: float | None = strawberry.field(description="Of those treated, the share that had the need.")
    share_treated: float | None = strawberry.field(description="Of those in need, the share that was treated.")


@strawberry.type
class InterventionMember:
    """One of an audience."""

    account: str
    key: str
    held_out: bool


InterventionConnection = Connection[Intervention]
InterventionMemberConnection = Connection[InterventionMember]


class _MemberPlace(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor of an audience holds."""

    account: CursorText
    key: CursorText


@strawberry.type(description="An intervention with what it did, which is computed when it is asked for.")
class MeasuredIntervention(Intervention):
    """One intervention, and whether it worked."""

    shown: strawberry.Private[interventions.Intervention]

    @strawberry.field(description="Whom it was meant for, by account and key.")
    async def audience(
        self, info: MeteringInfo, first: int = 50, after: str | None = strawberry.UNSET
    ) -> InterventionMemberConnection:
        """A page of them."""
        context = info.context
        check_first(first, context.limits, ("first",))
        place = decode_cursor(after, _MemberPlace, ("after",)) if after else None
        behind = None if place is None else (place.account, place.key)
        found, has_next = await read_audience(context.snapshot, self.key, first, behind)
        nodes = [InterventionMember(account=each.account, key=each.key, held_out=each.held_out) for each in found]
        cursors = [encode_cursor(_MemberPlace(each.account, each.key)) for each in found]
        return page_of(nodes, cursors, has_next=has_next, has_previous=place is not None)

    @strawberry.field(description="Did it work?")
    async def effect(self, info: MeteringInfo) -> InterventionEffect:
        """See metering/health/intervention_effects.py."""
        context = info.context
        found = await read_effect(context.snapshot, self.shown, context.limits)
        return InterventionEffect(
            method=found.method,
            before_on=found.before_on,
            measured_on=found.measured_on,
            treated=found.effect.treated,
            controls=found.effect.controls,
            left_out=found.effect.left_out,
            unmeasured=found.unmeasured,
            effect=_estimate(found.effect.effect),
            placebo=_estimate(found.effect.placebo),
            naive=found.effect.naive,
            not_enough=list(found.effect.not_enough),
        )

    @strawberry.field(description="Were the right ones reached? Null where no need was said.")
    async def reached(self, info: MeteringInfo) -> InterventionReached | None:
        """See metering/health/intervention_effects.py."""
        context = info.context
        found = await read_reached(context.snapshot, self.shown, context.limits)
        return None if found is None else _reached(found)


@strawberry.type
class HoldOutSubject:
    """A subject as it was named."""

    key: str
    account: str | None


@strawberry.type(description="Who is to be treated and who left alone, in the order asked: always the same answer.")
class HoldOut:
    """How the lot fell."""

    treated: list[HoldOutSubject]
    left_alone: list[HoldOutSubject]


HoldOutResult = Annotated[HoldOut | InvalidInput, strawberry.union("HoldOutResult")]
RecordInterventionResult = Annotated[
    Intervention | InvalidInput | Conflict, strawberry.union("RecordInterventionResult")
]


async def resolve_interventions(first: int, after: str | None, info: MeteringInfo) -> InterventionConnection:
    """Interventions, by key; none for who is bound to accounts: how customers are treated is not for them."""
    context = info.context

    async def read(count: int, behind: str | None) -> tuple[list[interventions.Intervention], bool]:
        return await read_interventions(context.snapshot, count, behind)

    return await page_by_key(first, after, context.limits, read, _shown)


async def resolve_intervention(key: str, info: MeteringInfo) -> MeasuredIntervention | None:
    """The intervention of a key."""
    found = await find_intervention(info.context.snapshot, key)
    return None if found is None else MeasuredIntervention(**_cells(found), shown=found)


async def resolve_hold_out(given: HoldOutInput, info: MeteringInfo) -> HoldOutResult:
    """Whom to leave alone, by lot; nothing is read, and nothing is kept."""
    order = HoldOutOrder(
        intervention=given.intervention,
        percent=given.percent,
        audience=_audience(given.subject, given.keys, given.subjects),
    )
    sides: dict[bool, list[HoldOutSubject]] = {False: [], True: []}
    for named, is_held in hold_out(order, info.context.limits):
        sides[is_held].append(HoldOutSubject(key=named.key, account=named.account))
    return HoldOut(treated=sides[False], left_alone=sides[True])


async def resolve_record_intervention(given: RecordInterventionInput, info: MeteringInfo) -> RecordInterventionResult:
    """Record an intervention, or that it has ended."""
    context = info.context
    need = given_or_none(given.need)
    order = InterventionOrder(
        key=given.key,
        kind=given.kind,
        audience=_audience(given.subject, given.keys, given.subjects),
        started_on=given.started_on,
        ended_on=given_or_none(given.ended_on),
        metric=given.metric,
        window_days=given.window_days,
        holdout_percent=given.holdout_percent,
        segment_by=given_or_none(given.segment_by),
        need=None
        if need is None
        else needs.Need(metric=need.metric, at_least=given_or_none(need.at_least), at_most=given_or_none(need.at_most)),
        note=given_or_none(given.note),
    )
    key = context.require(Scope.HEALTH_WRITE)
    return _shown(await context.service.record_intervention(order, key))


def _audience(subject: Subject, keys: list[str] | None, subjects: list[InterventionSubjectInput] | None) -> Audience:
    named = (Named(subject, each.key, given_or_none(each.account)) for each in given_or_none(subjects) or ())
    return Audience(subject=subject, keys=tuple(given_or_none(keys) or ()), subjects=tuple(named))


def _shown(found: interventions.Intervention) -> Intervention:
    return Intervention(**_cells(found))


def _cells(found: interventions.Intervention) -> dict[str, Any]:
    need = found.need
    shown = None if need is None else InterventionNeed(metric=need.metric, at_least=need.at_least, at_most=need.at_most)
    recorded_at = Instant(found.recorded_at)
    return {**msgspec.structs.asdict(found), "need": shown, "recorded_at": recorded_at}


def _estimate(found: effects.Estimate | None) -> EffectEstimate | None:
    return None if found is None else EffectEstimate(value=found.value, low=found.low, high=found.high)


def _reached(found: needs.Reached) -> InterventionReached:
    return InterventionReached(
        treated_known=found.treated_known,
        treated_in_need=found.treated_in_need,
        in_need=found.in_need,
        share_in_need=found.share_in_need,
        share_treated=found.share_treated,
    )
