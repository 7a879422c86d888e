"""Mutations of what we are told of customers: signals, outcomes, a manager's pulse, users, and words on a score."""

from datetime import date
from typing import Annotated, Any, Final

import strawberry

from graphql_api.attributes import attributes_of
from graphql_api.context import MeteringInfo
from graphql_api.left_out import given_or_none
from graphql_api.problems import InvalidInput
from graphql_api.scalars import CurrencyCode, DecimalText, Instant, JsonObject
from graphql_api.users import User, new_user
from health.overrides import Override
from health.scorecards import Subject
from metering.health.outcomes import OutcomeKind, OutcomeOrder
from metering.health.overriding import OverrideOrder
from metering.health.signals import PULSE, Recorded, SignalOrder
from metering.health.users import UserOrder
from metering.keys import Scope

_ACCOUNT: Final = "Whose the subject is: needed of a user, and of a subscription that was never put."
_EXTERNAL_ID: Final = (
    "The source's own: what is sent again by it is recorded once. Without it, a repetition is known by all that "
    "it says."
)
_SOURCE_OF_PULSE: Final = "pulse"
_KINDS: Final = {
    OutcomeKind.RENEWED: "The contract goes on.",
    OutcomeKind.CHURNED: "The customer has left.",
    OutcomeKind.CONTRACTED: "It pays less.",
    OutcomeKind.EXPANDED: "It pays more.",
    OutcomeKind.CONVERTED: "A trial became a contract.",
    OutcomeKind.TRIAL_LOST: "A trial ended without one.",
}
_kind: Any = strawberry.enum(OutcomeKind)
for _value in _kind.__strawberry_definition__.values:
    _value.description = _KINDS[OutcomeKind(_value.value)]


@strawberry.input(
    description="A dated value by name: nps, csat, a ticket, an overdue invoice, a pulse, or anything else."
)
class SignalInput:
    """A signal as it is told."""

    subject: Subject
    key: str
    account: str | None = strawberry.field(default=strawberry.UNSET, description=_ACCOUNT)
    name: str
    value: float
    at: Instant = strawberry.field(description="When it was so; not in the future.")
    source: str
    external_id: str | None = strawberry.field(default=strawberry.UNSET, description=_EXTERNAL_ID)
    note: str | None = strawberry.field(default=strawberry.UNSET, description="A pulse needs one.")
    expires_at: Instant | None = strawberry.field(
        default=strawberry.UNSET, description="It counts for nothing from here on, whatever the scorecard says."
    )


@strawberry.input(description="What became of an account or a subscription.")
class OutcomeInput:
    """An outcome as it is told."""

    subject: Subject
    key: str
    account: str | None = strawberry.field(default=strawberry.UNSET, description=_ACCOUNT)
    kind: OutcomeKind
    at: Instant
    source: str
    external_id: str | None = strawberry.field(default=strawberry.UNSET, description=_EXTERNAL_ID)
    monthly_amount_change: DecimalText | None = strawberry.field(
        default=strawberry.UNSET, description="By how much the recurring revenue of a month moved."
    )
    currency_code: CurrencyCode | None = strawberry.UNSET
    reason: str | None = strawberry.UNSET


@strawberry.input(
    description="What the customer success manager says of a customer, 1 critical to 5 excellent, and why."
)
class SetPulseInput:
    """A pulse as it is said."""

    subject: Subject = Subject.ACCOUNT
    key: str
    account: str | None = strawberry.field(default=strawberry.UNSET, description=_ACCOUNT)
    value: int
    note: str
    at: Instant = strawberry.field(description="When it was said; not in the future.")
    expires_at: Instant | None = strawberry.field(
        default=strawberry.UNSET,
        description="90 days after `at` at most, and of 1 and 5 30 days; as long, unless given.",
    )


@strawberry.input(
    description="A person's word on one score from today on: at least, at most, or both; the score below is kept."
)
class OverrideHealthInput:
    """An override as it is said."""

    subject: Subject = Subject.ACCOUNT
    key: str
    account: str | None = strawberry.field(default=strawberry.UNSET, description=_ACCOUNT)
    purpose: str = "health"
    min: float | None = strawberry.UNSET
    max: float | None = strawberry.UNSET
    reason: str
    expires_on: date = strawberry.field(description="The first UTC day on which it does not count; in 90 days at most.")


@strawberry.input(
    description="A user of an account, with all attributes that it has from an instant on: its role above all."
)
class PutUserInput:
    """A user as it is put."""

    account: str
    key: str
    attributes: JsonObject | None = strawberry.UNSET
    at: Instant | None = strawberry.field(
        default=strawberry.UNSET, description="From when on; now, unless given. Not in the future."
    )


@strawberry.type
class RecordSignalsSuccess:
    """How many were new, and how many were recorded before."""

    accepted: int
    duplicates: int


@strawberry.type
class RecordOutcomesSuccess:
    """How many were new, and how many were recorded before."""

    accepted: int
    duplicates: int


@strawberry.type
class OverrideHealthSuccess:
    """The score is computed anew in a moment."""

    subject: Subject
    account: str
    key: str


RecordSignalsResult = Annotated[RecordSignalsSuccess | InvalidInput, strawberry.union("RecordSignalsResult")]
RecordOutcomesResult = Annotated[RecordOutcomesSuccess | InvalidInput, strawberry.union("RecordOutcomesResult")]
OverrideHealthResult = Annotated[OverrideHealthSuccess | InvalidInput, strawberry.union("OverrideHealthResult")]
PutUserResult = Annotated[User | InvalidInput, strawberry.union("PutUserResult")]


async def resolve_record_signals(given: list[SignalInput], info: MeteringInfo) -> RecordSignalsResult:
    """Record signals, all or none."""
    orders = [
        SignalOrder(
            subject=each.subject,
            key=each.key,
            account=given_or_none(each.account),
            name=each.name,
            value=each.value,
            at=each.at,
            source=each.source,
            external_id=given_or_none(each.external_id),
            note=given_or_none(each.note),
            expires_at=given_or_none(each.expires_at),
        )
        for each in given
    ]
    return _signals(await _record(orders, info))


async def resolve_set_pulse(given: SetPulseInput, info: MeteringInfo) -> RecordSignalsResult:
    """Record a pulse: a signal, of which this service is the source."""
    order = SignalOrder(
        subject=given.subject,
        key=given.key,
        account=given_or_none(given.account),
        name=PULSE,
        value=float(given.value),
        at=given.at,
        source=_SOURCE_OF_PULSE,
        note=given.note,
        expires_at=given_or_none(given.expires_at),
    )
    context = info.context
    return _signals(await context.service.set_pulse(order, context.require(Scope.HEALTH_WRITE)))


async def resolve_record_outcomes(given: list[OutcomeInput], info: MeteringInfo) -> RecordOutcomesResult:
    """Record outcomes, all or none."""
    context = info.context
    orders = [
        OutcomeOrder(
            subject=each.subject,
            key=each.key,
            account=given_or_none(each.account),
            kind=each.kind,
            at=each.at,
            source=each.source,
            external_id=given_or_none(each.external_id),
            monthly_amount_change=given_or_none(each.monthly_amount_change),
            currency_code=given_or_none(each.currency_code),
            reason=given_or_none(each.reason),
        )
        for each in given
    ]
    done = await context.service.record_outcomes(orders, context.require(Scope.HEALTH_WRITE))
    return RecordOutcomesSuccess(accepted=done.accepted, duplicates=done.duplicates)


async def resolve_override_health(given: OverrideHealthInput, info: MeteringInfo) -> OverrideHealthResult:
    """Bound a score."""
    context = info.context
    override = Override(
        reason=given.reason,
        # From today on, whatever day that is where it is kept.
        set_on=given.expires_on,
        expires_on=given.expires_on,
        min=given_or_none(given.min),
        max=given_or_none(given.max),
    )
    order = OverrideOrder(
        subject=given.subject,
        key=given.key,
        account=given_or_none(given.account),
        purpose=given.purpose,
        override=override,
    )
    ref = await context.service.override_health(order, context.require(Scope.HEALTH_WRITE))
    return OverrideHealthSuccess(subject=ref.subject, account=ref.account, key=ref.key)


async def resolve_put_user(given: PutUserInput, info: MeteringInfo) -> PutUserResult:
    """Say what is known of a user."""
    context = info.context
    key = context.require(Scope.HEALTH_WRITE)
    order = UserOrder(
        account=given.account, key=given.key, attributes=attributes_of(given.attributes), at=given_or_none(given.at)
    )
    await context.service.put_user(order, key)
    # A snapshot of its own: the operation's may be older than what was just put.
    async with context.service.snapshot(key.reach) as snapshot:
        return await new_user(snapshot, order.account, order.key)


async def _record(orders: list[SignalOrder], info: MeteringInfo) -> Recorded:
    context = info.context
    return await context.service.record_signals(orders, context.require(Scope.HEALTH_WRITE))


def _signals(done: Recorded) -> RecordSignalsSuccess:
    return RecordSignalsSuccess(accepted=done.accepted, duplicates=done.duplicates)
